"""Writes scheduler.json: sigmas, timesteps and step traces of diffusers' schedulers.

Made with diffusers 0.42.1, torch 2.15.0, numpy 2.4.6 (CPU). Run: python tests/golden/scheduler.py

Each trace is taken twice: in 32-bit floats like the pipeline, and with the same 32-bit sigmas in
64-bit floats, which shows the method without rounding.
"""

import json
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

CASES = [(1, 5.0), (2, 5.0), (3, 3.0), (5, 8.0), (20, 3.0), (50, 5.0)]
LATENTS = [1.5, -0.75, 0.125, -2.0]
TARGET = [0.5, -1.0, 0.25, 1.0]


def velocity(sample, sigma):
    """A smooth, curved flow. The Rust test computes the same flow."""
    target = torch.tensor(TARGET, dtype=sample.dtype)
    return (sample - target) * (1 + 0.5 * sigma) + 0.1 * sample * sample


def scheduler(kind, shift):
    if kind == "euler":
        return FlowMatchEulerDiscreteScheduler(shift=shift)
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, solver_order=int(kind[-1])
    )


def trace(kind, steps, shift, dtype):
    solver = scheduler(kind, shift)
    solver.set_timesteps(steps)
    solver.set_begin_index(0)
    solver.sigmas = solver.sigmas.to(dtype)
    if dtype == torch.float64 and kind == "euler":
        # diffusers' Euler step casts the sample to 32 bits, so this function replaces it.
        def step(v, t, x, i=iter(range(steps))):
            index = next(i)
            return x + (solver.sigmas[index + 1] - solver.sigmas[index]) * v
    else:
        def step(v, t, x):
            return solver.step(v, t, x, return_dict=False)[0]
    sample, samples = torch.tensor([LATENTS], dtype=dtype), []
    for i, timestep in enumerate(solver.timesteps):
        sample = step(velocity(sample, solver.sigmas[i]), timestep, sample)
        samples.append([float(f"{value:.9g}") for value in sample[0].tolist()])
    return solver, samples


cases = []
for kind in ["unipc1", "unipc2", "euler"]:
    for steps, shift in CASES:
        solver, float32 = trace(kind, steps, shift, torch.float32)
        _, float64 = trace(kind, steps, shift, torch.float64)
        cases.append(
            {
                "scheduler": kind,
                "shift": shift,
                "sigmas": [float(f"{value:.9g}") for value in solver.sigmas.tolist()],
                "timesteps": [float(f"{value:.9g}") for value in solver.timesteps.tolist()],
                "float32": float32,
                "float64": float64,
            }
        )

out = {"latents": LATENTS, "target": TARGET, "cases": cases}
Path(__file__).with_suffix(".json").write_text(json.dumps(out, separators=(",", ":")).replace('{"scheduler"', '\n{"scheduler"') + "\n")
