"""Code that the make_*.py scripts share: a golden, its measurements and its files.

A golden consists of `data/NAME.json` (configurations, recipes of all weights and inputs, cases with
their measurements) and `data/NAME.safetensors` (outputs in f32 with keys `CASE/DTYPE/OUTPUT`).
"""

import contextlib
import json
import math
import pathlib
from unittest import mock

import diffusers.models.embeddings
import torch
from safetensors.torch import save_file
from transformers.models.umt5.modeling_umt5 import UMT5LayerNorm

import synth

DATA = pathlib.Path(__file__).parent / "data"
DTYPES = ["F32", "F16", "BF16"]
# The largest ||a-b||/||b|| of ditscope.
LIMIT = 2e-5
# The largest ||a-b||/||b|| of the reference in f32, which must be well below ditscope's limit.
REFERENCE_LIMIT = LIMIT * 0.75
# Attention counts as peaked if its largest probability is at least this in the mean over rows.
PEAK = 0.5


def rel_error(a, b):
    """||a - b|| / ||b|| in f64."""
    a, b = a.double(), b.double()
    return ((a - b).norm() / b.norm()).item()


def timestep_embedding_f64(timesteps, dim, flip_sin_to_cos, downscale_freq_shift, scale, max_period=10000):
    """diffusers' sinusoid with an f64 exponent. diffusers itself computes the frequencies in
    f32."""
    half = dim // 2
    exponent = -math.log(max_period) * torch.arange(half, dtype=torch.float64) / (half - downscale_freq_shift)
    angle = scale * timesteps[:, None].double() * torch.exp(exponent)
    first, second = (angle.cos(), angle.sin()) if flip_sin_to_cos else (angle.sin(), angle.cos())
    return torch.cat([first, second], -1)


def umt5_norm_f64(self, x):
    """UMT5LayerNorm without its cast to f32."""
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


@contextlib.contextmanager
def double_precision():
    """Lets models that are built and run inside compute in f64. Their casts `.float()` become
    `.double()`."""
    with (
        mock.patch.object(torch.Tensor, "float", torch.Tensor.double),
        mock.patch.object(diffusers.models.embeddings, "get_timestep_embedding", timestep_embedding_f64),
        mock.patch.object(UMT5LayerNorm, "forward", umt5_norm_f64),
    ):
        yield


class AttentionWatch(contextlib.AbstractContextManager):
    """Records how peaked each attention is: the mean over rows of the largest softmax probability.

    Identical keys (the padding of the prompt) count as one key, as in ditscope. Their share of the
    probability is also recorded."""

    def __enter__(self):
        self.peaks, self.pad_shares = {"self": [], "cross": []}, []
        self.original = torch.nn.functional.scaled_dot_product_attention
        torch.nn.functional.scaled_dot_product_attention = self.attention
        return self

    def __exit__(self, *_):
        torch.nn.functional.scaled_dot_product_attention = self.original

    def attention(self, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **kwargs):
        logits = query @ key.transpose(-1, -2) * (scale or query.shape[-1] ** -0.5)
        if attn_mask is not None:
            logits = logits + attn_mask
        p = logits.softmax(-1)
        pad = ((key - key[..., -1:, :]).abs().amax(-1) < 1e-5).all(tuple(range(key.dim() - 2)))
        if pad.sum() > 1:
            share = p[..., pad].sum(-1, keepdim=True)
            self.pad_shares.append(share.mean().item())
            p = torch.cat([p[..., ~pad], share], -1)
        kind = "self" if query.shape[-2] == key.shape[-2] else "cross"
        self.peaks[kind].append(p.amax(-1).mean().item())
        return self.original(query, key, value, attn_mask=attn_mask, scale=scale, **kwargs)

    def summary(self):
        """Means over all recorded attentions. Asserts that the attention is peaked."""
        mean = lambda v: round(sum(v) / len(v), 3)
        found = {f"{kind}_peak": mean(v) for kind, v in self.peaks.items() if v}
        assert all(v >= PEAK for v in found.values()), found
        if self.pad_shares:
            found["pad_share"] = mean(self.pad_shares)
            assert 0.05 < found["pad_share"] < 0.95, found
        return found


class Golden:
    """A golden: parts (synthetic models), other files of the model folder, cases and their
    outputs."""

    def __init__(self, name):
        self.name, self.parts, self.files, self.cases, self.outputs = name, {}, {}, [], {}

    def add_part(self, folder, config, model, rules):
        """Declares the synthetic weights of `model`, stored in `folder` of the model directory."""
        names = list(model.state_dict())
        aliases = set(getattr(model, "_tied_weights_keys", None) or ())
        shapes = {n: model.state_dict()[n].shape for n in names if n not in aliases}
        tensors = [synth.weight_recipe(n, shape, rules) for n, shape in shapes.items()]
        self.parts[folder] = {"config": config, "tensors": tensors, "checksums": {}}
        for dtype in DTYPES:
            weights = self.weights(folder, dtype)
            self.parts[folder]["checksums"][dtype] = synth.checksum(weights.values())

    def weights(self, folder, dtype):
        """The state dict of a part, rounded to `dtype`."""
        to = synth.TORCH_DTYPES[dtype]
        recipes = self.parts[folder]["tensors"]
        return {r["name"]: synth.fill(f"{self.name}/{folder}/{r['name']}", r).to(to) for r in recipes}

    def load(self, folder, model, dtype, compute=torch.float32):
        """`model` with the part's weights rounded to `dtype`. It computes in `compute`."""
        missing, unexpected = model.load_state_dict(self.weights(folder, dtype), strict=False)
        assert not unexpected and set(missing) <= set(getattr(model, "_tied_weights_keys", None) or ()), missing
        return model.to(compute).eval().requires_grad_(False)

    def input(self, case, name, shape, **scale):
        """A synthetic f32 input. The case records its recipe."""
        recipe = synth.input_recipe(shape, **scale)
        case.setdefault("inputs", {})[name] = recipe
        return synth.fill(f"{self.name}/{case['name']}/{name}", recipe)

    def record(self, case, dtype, outputs, exact):
        """Stores a case's f64 outputs `exact` (as f32) and the errors of the f32 outputs
        `outputs`."""
        entry = case.setdefault("outputs", {}).setdefault(dtype, {})
        for name, value in outputs.items():
            truth = exact[name]
            assert truth.dtype == torch.float64 and truth.isfinite().all(), name
            error = rel_error(value, truth)
            assert error < REFERENCE_LIMIT, (self.name, case["name"], dtype, name, error)
            self.outputs[f"{case['name']}/{dtype}/{name}"] = truth.to(torch.float32).contiguous()
            entry[name] = {"reference_error": float(f"{error:.2g}")}

    def write(self):
        """Writes data/NAME.json and data/NAME.safetensors and prints a summary."""
        DATA.mkdir(exist_ok=True)
        doc = {"name": self.name, "parts": self.parts, "files": self.files, "cases": self.cases}
        text = json.dumps(doc, ensure_ascii=False)
        # One tensor or case per line keeps the file small and readable.
        for start in ('{"name": ', '"outputs": ', '"files": '):
            text = text.replace(", " + start, ",\n" + start)
        (DATA / f"{self.name}.json").write_text(text + "\n", encoding="utf-8")
        save_file(self.outputs, DATA / f"{self.name}.safetensors")
        size = sum((DATA / f"{self.name}.{e}").stat().st_size for e in ("json", "safetensors"))
        print(f"{self.name}: {size / 1e3:.0f} kB")
        for case in self.cases:
            worst = max(o["reference_error"] for d in case["outputs"].values() for o in d.values())
            print(f"  {case['name']}: {case.get('attention')} reference error up to {worst:.1e}")
