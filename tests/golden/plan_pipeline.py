r"""Applies a plan of ditscope to diffusers' WanTransformer3DModel, and compares the clips. Run by hand.

    ditscope plan --steps 50 --speedup 2 -o plan.json
    ditscope generate "a cat walking on grass" --steps 50 --save-latents noise.safetensors \
        --strategy plan.json -o frames/
    python tests/golden/plan_pipeline.py --plan plan.json --steps 50 --latents noise.safetensors \
        --frames frames/ --prompt "a cat walking on grass"

The options are those of demo_pipeline.py. docs/plan-format.md describes the plan.
"""

import copy
import json
import sys

import demo_pipeline
import torch
from diffusers import WanPipeline


class Stack(torch.nn.Module):
    """Stands for all blocks of the transformer: runs them, or adds what they would add."""

    def __init__(self, blocks):
        super().__init__()
        self.blocks, self.weights, self.store = blocks, None, False
        self.deltas = {"cond": [], "uncond": []}  # what the blocks added in computed steps, newest first
        self.branch = "cond"

    def forward(self, hidden, *others):
        deltas = self.deltas[self.branch]
        if self.weights is not None:
            return hidden + sum(weight * delta for weight, delta in zip(self.weights, deltas))
        out = hidden
        for block in self.blocks:
            out = block(out, *others)
        if self.store:
            deltas.insert(0, out - hidden)
            del deltas[4:]
        return out


def apply(pipe, plans, guidance):
    """Makes the pipeline's next run follow the plans. Guidance must be on: two branches a step."""
    stack = Stack(pipe.transformer.blocks)
    pipe.transformer.blocks = torch.nn.ModuleList([stack])
    forward, step = pipe.transformer.forward, pipe.scheduler.step
    calls, expected, history = [0], {}, []

    def planned_forward(*args, **kwargs):
        index, second = divmod(calls[0], 2)
        calls[0] += 1
        stack.branch = "uncond" if second else "cond"
        plan = plans[index]
        if "correction" in plan:
            # What the deltas so far would have predicted here; no block runs.
            stack.weights = plan["correction"]["expected"]
            expected[stack.branch] = forward(*args, **kwargs)[0]
        [segment] = plan[stack.branch]["blocks"]
        action = segment["action"]
        stack.weights = action["reuse"] if isinstance(action, dict) else None
        stack.store = action == "store"
        return forward(*args, **kwargs)

    def planned_step(velocity, timestep, sample, **kwargs):
        shares = plans[len(history)].get("correction", {}).get("shares", [])
        if shares:
            # The skipped steps again, with velocities larger by a share of the surprise.
            guess = expected["uncond"] + guidance * (expected["cond"] - expected["uncond"])
            past = history[-len(shares) :]
            vars(pipe.scheduler).update(copy.deepcopy(past[0][0]))
            sample = past[0][3]
            for share, (_, skipped, at, _) in zip(shares, past):
                sample = step(skipped + share * (velocity - guess), at, sample, return_dict=False)[0]
        state = {name: copy.deepcopy(value) for name, value in vars(pipe.scheduler).items() if name != "step"}
        history.append((state, velocity, timestep, sample))
        return step(velocity, timestep, sample, **kwargs)

    pipe.transformer.forward, pipe.scheduler.step = planned_forward, planned_step


def main():
    if "--plan" not in sys.argv:
        sys.exit(__doc__)
    place = sys.argv.index("--plan")
    with open(sys.argv[place + 1]) as file:
        plans = json.load(file)["plans"]
    del sys.argv[place : place + 2]
    guidance = demo_pipeline.arguments().guidance_scale
    load = WanPipeline.from_pretrained

    def load_planned(*args, **kwargs):
        pipe = load(*args, **kwargs)
        apply(pipe, plans, guidance)
        return pipe

    demo_pipeline.WanPipeline = type("Planned", (), {"from_pretrained": staticmethod(load_planned)})
    demo_pipeline.main()


if __name__ == "__main__":
    main()
