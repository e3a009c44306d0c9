"""Writes the prompt lists eval.txt (32 prompts) and profile.txt (8 prompts) from held-out triples.

    python training/prompts.py assets/prompts
"""

import sys
from pathlib import Path

import numpy as np

import data


def balanced(count_eval=32, count_profile=8, seed=21):
    """Two disjoint lists of held-out triples in which objects and motions occur about equally
    often."""
    left = sorted(data.held_out())
    np.random.default_rng(seed).shuffle(left)
    used, chosen = {}, []
    while len(chosen) < count_eval + count_profile:
        best = min(left, key=lambda t: sum(used.get((i, v), 0) / n for i, (v, n) in enumerate(zip(t, (.5, 1, 1.3)))))
        left.remove(best)
        chosen.append(tuple(str(v) for v in best))
        for key in enumerate(chosen[-1]):
            used[key] = used.get(key, 0) + 1
    return chosen[:count_eval], chosen[count_eval:]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, triples in zip(("eval.txt", "profile.txt"), balanced()):
        (folder / name).write_text("".join(data.plain_caption(t) + "\n" for t in triples))
