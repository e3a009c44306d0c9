"""Code that the training programs share: the state folder, saving, progress."""

import os
import time
from pathlib import Path

import torch

DEFAULT_STATE = os.environ.get("DITSCOPE_TRAINING_STATE", "~/.cache/ditscope-training")


def add_state_argument(parser):
    parser.add_argument("--state", type=_state_folder, default=DEFAULT_STATE, help="folder for checkpoints and caches")


def add_threads_argument(parser):
    parser.add_argument("--threads", type=int, default=2, help="processor cores; one where others use the machine")


def _state_folder(text):
    folder = Path(text).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# bf16 is four times as fast as f32 on CPUs that have it. On other CPUs it is emulated and twenty
# times as slow.
HAS_BF16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


def save_atomically(path, obj):
    """Saves `obj` at `path`. A reader never sees a partial file, and a crash keeps the older
    file."""
    temporary = Path(f"{path}.tmp")
    with open(temporary, "wb") as file:
        torch.save(obj, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def busy_seconds():
    """Processor time of this process, divided by its threads.

    A budget counts this time, so other work on the machine makes a run longer but not worse."""
    return time.process_time() / torch.get_num_threads()


class Progress:
    """The time budget of a run that can be resumed. Prints a log line every few seconds."""

    def __init__(self, budget, spent=0.0, every=20):
        self.budget, self.before, self.start = budget, spent, busy_seconds()
        self.every, self.last, self.sums, self.count = every, time.time(), {}, 0

    def spent(self):
        return self.before + busy_seconds() - self.start

    def fraction(self):
        return min(1.0, self.spent() / self.budget)

    def finished(self):
        return self.spent() >= self.budget

    def log(self, step, **values):
        """Collects values and prints their means every few seconds."""
        for k, v in values.items():
            self.sums[k] = self.sums.get(k, 0) + v
        self.count += 1
        now = time.time()
        if now - self.last < self.every:
            return
        means = "  ".join(f"{k} {v / self.count:.4f}" for k, v in self.sums.items())
        left = max(0, self.budget - self.spent()) / 60
        print(f"step {step:6d}  {means}  {(now - self.last) / self.count:.2f} s/step  {left:.0f} min left", flush=True)
        self.last, self.sums, self.count = now, {}, 0
