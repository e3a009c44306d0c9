"""Muon for matrices and convolutions, AdamW for the rest, and a moving average of the weights."""

import torch

from common import HAS_BF16


def orthogonalise(g, steps=5):
    """Approximates the nearest (semi-)orthogonal matrix by a Newton-Schulz iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    transposed = g.shape[0] > g.shape[1]
    x = g.T if transposed else g
    x = x / (x.norm() + 1e-7)
    if HAS_BF16:  # the iteration tolerates rounding
        x = x.bfloat16()
    for _ in range(steps):
        s = x @ x.T
        x = a * x + (b * s + c * (s @ s)) @ x
    return (x.T if transposed else x).float()


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalised matrix updates. A kernel counts as a matrix (out, all other
    axes)."""

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "m" not in state:
                    state["m"] = torch.zeros_like(p)
                state["m"].lerp_(p.grad, 1 - group["momentum"])
                g = p.grad.lerp(state["m"], group["momentum"]).flatten(1)
                update = orthogonalise(g).reshape(p.shape)
                rows, cols = g.shape
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * max(1, rows / cols) ** 0.5)


class MixedOptimizer:
    """Muon for the tensors that `is_matrix` selects and AdamW for the others, with a common factor
    of the learning rates."""

    def __init__(self, model, is_matrix, muon_lr, adam_lr, weight_decay=0.0):
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        matrices = [p for n, p in named if is_matrix(n, p)]
        others = [p for n, p in named if not is_matrix(n, p)]
        self.parts = [
            Muon(matrices, muon_lr, weight_decay=weight_decay),
            torch.optim.AdamW(others, adam_lr, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.base = [muon_lr, adam_lr]

    def step(self, factor):
        for part, lr in zip(self.parts, self.base):
            for group in part.param_groups:
                group["lr"] = lr * factor
            part.step()
            part.zero_grad(set_to_none=True)

    def state_dict(self):
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states):
        for part, state in zip(self.parts, states):
            part.load_state_dict(state)


class Ema:
    """Exponential moving average of a model's weights. The decay rises from zero."""

    def __init__(self, model, decay):
        self.decay, self.steps = decay, 0
        self.weights = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model):
        self.steps += 1
        keep = min(self.decay, self.steps / (self.steps + 10))
        for k, v in model.state_dict().items():
            self.weights[k].lerp_(v, 1 - keep)
