"""What the training programs share: where state lives, saving, progress."""

import os
import time
from pathlib import Path

import torch

DEFAULT_STATE = os.environ.get("DITSCOPE_TRAINING_STATE", "~/.cache/ditscope-training")


def add_state_argument(parser):
    parser.add_argument("--state", type=_state_folder, default=DEFAULT_STATE, help="folder for checkpoints and caches")


def _state_folder(text):
    folder = Path(text).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# bf16 is four times as fast as f32 where the CPU has it; where it is emulated it is twenty times as slow.
HAS_BF16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


def save_atomically(path, obj):
    """A reader never sees half a file, and a crash leaves the last good one."""
    temporary = Path(f"{path}.tmp")
    torch.save(obj, temporary)
    temporary.replace(path)


def busy_seconds():
    """Time that this process had all its threads' cores to itself: what a budget counts, so that other work on the
    machine makes a run longer, not worse."""
    return time.process_time() / torch.get_num_threads()


class Progress:
    """Time budget of a run that may be resumed, with a log line every few seconds."""

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
        """Collect values; print their means now and then."""
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
