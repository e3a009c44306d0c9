"""The Wan2.1 transformer and its text encoder, for training.

Tensors, names and function equal diffusers' WanTransformer3DModel and transformers'
UMT5EncoderModel (`tests.py` checks this). The code here is short, and fast for small batches of
short captions.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

DIT_CONFIG = {
    "patch_size": [1, 2, 2],
    "num_attention_heads": 6,
    "attention_head_dim": 32,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 128,
    "freq_dim": 256,
    "ffn_dim": 768,
    "num_layers": 12,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "rope_max_seq_len": 1024,
}
TEXT_CONFIG = {
    "d_model": 128,
    "d_kv": 32,
    "num_heads": 4,
    "d_ff": 256,
    "num_layers": 2,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "gated-gelu",
    "dropout_rate": 0.0,
}
TEXT_ROWS = 512  # number of context rows of the transformer, most of which are padding


class RMSNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


# ---------------------------------------------------------------- text encoder


def position_bucket(distance, buckets, max_distance):
    """T5's bucket of the relative position (key minus query): half linear, half logarithmic, for
    each sign."""
    half = buckets // 2
    exact = half // 2
    d = distance.abs()
    log = exact + (torch.log(d.clamp(min=1) / exact) / math.log(max_distance / exact) * (half - exact)).long()
    return (distance > 0).long() * half + torch.where(d < exact, d, log.clamp(max=half - 1))


class TextAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        inner = c["num_heads"] * c["d_kv"]
        self.heads = c["num_heads"]
        self.q, self.k, self.v = (nn.Linear(c["d_model"], inner, bias=False) for _ in range(3))
        self.o = nn.Linear(inner, c["d_model"], bias=False)
        self.relative_attention_bias = nn.Embedding(c["relative_attention_num_buckets"], c["num_heads"])
        self.buckets = c["relative_attention_num_buckets"], c["relative_attention_max_distance"]

    def forward(self, x, mask):
        b, n, _ = x.shape
        q, k, v = (f(x).view(b, n, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        i = torch.arange(n)
        bias = self.relative_attention_bias(position_bucket(i[None] - i[:, None], *self.buckets)).permute(2, 0, 1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None] + mask[:, None, None], scale=1.0)
        return self.o(y.transpose(1, 2).reshape(b, n, -1))


class GatedFFN(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.wi_0 = nn.Linear(c["d_model"], c["d_ff"], bias=False)
        self.wi_1 = nn.Linear(c["d_model"], c["d_ff"], bias=False)
        self.wo = nn.Linear(c["d_ff"], c["d_model"], bias=False)

    def forward(self, x):
        return self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))


class TextEncoder(nn.Module):
    """Turns token ids (batch, n) and their counts into embeddings. Rows after a caption's end are
    zero."""

    def __init__(self, vocab_size, c=TEXT_CONFIG):
        super().__init__()
        self.shared = nn.Embedding(vocab_size, c["d_model"])
        norm = lambda: RMSNorm(c["d_model"], c["layer_norm_epsilon"])  # noqa: E731
        blocks = []
        for _ in range(c["num_layers"]):
            attention = nn.ModuleDict({"SelfAttention": TextAttention(c), "layer_norm": norm()})
            ffn = nn.ModuleDict({"DenseReluDense": GatedFFN(c), "layer_norm": norm()})
            blocks.append(nn.ModuleDict({"layer": nn.ModuleList([attention, ffn])}))
        self.encoder = nn.ModuleDict({"block": nn.ModuleList(blocks), "final_layer_norm": norm()})
        nn.init.normal_(self.shared.weight, std=1.0)
        for block in blocks:
            a = block["layer"][0]["SelfAttention"]
            nn.init.zeros_(a.relative_attention_bias.weight)
            nn.init.normal_(a.q.weight, std=(c["d_model"] * c["d_kv"]) ** -0.5)  # logits are not scaled

    def forward(self, ids, counts):
        valid = torch.arange(ids.shape[1])[None] < counts[:, None]
        mask = torch.zeros(valid.shape).masked_fill(~valid, -1e9)
        x = self.shared(ids)
        for block in self.encoder["block"]:
            attention, ffn = block["layer"]
            x = x + attention["SelfAttention"](attention["layer_norm"](x), mask)
            x = x + ffn["DenseReluDense"](ffn["layer_norm"](x))
        return self.encoder["final_layer_norm"](x) * valid[..., None]


# ---------------------------------------------------------------- transformer


def rope_table(grid, head_dim):
    """cos and sin, each (tokens, head_dim / 2), for a token grid (frames, height, width)."""
    hw = 2 * (head_dim // 6)
    angles = []
    for axis, dim in enumerate((head_dim - 2 * hw, hw, hw)):
        freq = 10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        shape = [1, 1, 1, -1]
        shape[axis] = grid[axis]
        position = torch.arange(grid[axis], dtype=torch.float64)[:, None] * freq
        angles.append(position.view(shape).expand(*grid, -1))
    angle = torch.cat(angles, -1).flatten(0, 2).float()
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    """Applies RoPE to (batch, tokens, heads, head_dim). Neighbouring channels form the pairs."""
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[None, :, None], sin[None, :, None]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


class Attention(nn.Module):
    def __init__(self, dim, heads, eps):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, dim) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
        self.norm_q, self.norm_k = RMSNorm(dim, eps), RMSNorm(dim, eps)

    def forward(self, x, context=None, rope=None, bias=None):
        context = x if context is None else context
        q, k, v = self.norm_q(self.to_q(x)), self.norm_k(self.to_k(context)), self.to_v(context)
        q, k, v = (y.unflatten(-1, (self.heads, -1)) for y in (q, k, v))
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))
        # The attention is written out, because for so few tokens the backward pass of PyTorch's
        # fused attention takes half of a training step.
        score = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        y = (score if bias is None else score + bias).softmax(-1).to(v.dtype) @ v
        return self.to_out[0](y.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        first = nn.ModuleDict({"proj": nn.Linear(dim, hidden)})
        self.net = nn.ModuleList([first, nn.Identity(), nn.Linear(hidden, dim)])

    def forward(self, x):
        return self.net[2](F.gelu(self.net[0]["proj"](x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, dim, heads, hidden, eps):
        super().__init__()
        self.dim, self.eps = dim, eps
        self.attn1, self.attn2 = Attention(dim, heads, eps), Attention(dim, heads, eps)
        self.norm2 = nn.LayerNorm(dim, eps)
        self.ffn = FeedForward(dim, hidden)
        self.scale_shift_table = nn.Parameter(torch.zeros(1, 6, dim))

    def forward(self, x, context, bias, modulation, cos, sin):
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.scale_shift_table + modulation).chunk(6, 1)
        norm = lambda y: F.layer_norm(y, (self.dim,), eps=self.eps)  # noqa: E731
        x = x + gate1 * self.attn1(norm(x) * (1 + scale1) + shift1, rope=(cos, sin))
        x = x + self.attn2(self.norm2(x), context, bias=bias)
        return x + gate2 * self.ffn(norm(x) * (1 + scale2) + shift2)


class Conditioner(nn.Module):
    """Embeds time and text."""

    def __init__(self, dim, c):
        super().__init__()
        mlp = lambda n: nn.ModuleDict({"linear_1": nn.Linear(n, dim), "linear_2": nn.Linear(dim, dim)})  # noqa: E731
        self.time_embedder, self.text_embedder = mlp(c["freq_dim"]), mlp(c["text_dim"])
        self.time_proj = nn.Linear(dim, 6 * dim)
        self.freq_dim = c["freq_dim"]

    def forward(self, t, text):
        half = self.freq_dim // 2
        angle = t[:, None].float() * torch.exp(-math.log(10000) / half * torch.arange(half))
        e = torch.cat((angle.cos(), angle.sin()), -1)
        e = self.time_embedder["linear_2"](F.silu(self.time_embedder["linear_1"](e)))
        text = self.text_embedder["linear_2"](F.gelu(self.text_embedder["linear_1"](text), approximate="tanh"))
        return e, self.time_proj(F.silu(e)).unflatten(1, (6, -1)), text


class DiT(nn.Module):
    """Predicts the velocity (noise - data) of latents (batch, 16, frames, height, width) at
    timestep t."""

    def __init__(self, c=DIT_CONFIG):
        super().__init__()
        self.heads, self.head_dim, self.eps = c["num_attention_heads"], c["attention_head_dim"], c["eps"]
        dim = self.dim = self.heads * self.head_dim
        self.patch_embedding = nn.Conv3d(c["in_channels"], dim, c["patch_size"], c["patch_size"])
        self.condition_embedder = Conditioner(dim, c)
        self.blocks = nn.ModuleList(Block(dim, self.heads, c["ffn_dim"], self.eps) for _ in range(c["num_layers"]))
        self.proj_out = nn.Linear(dim, c["out_channels"] * math.prod(c["patch_size"]))
        self.scale_shift_table = nn.Parameter(torch.zeros(1, 2, dim))
        self._ropes = {}
        self._initialise()

    def _initialise(self):
        """Sets residual branches and the output to zero, and gates to one."""
        for block in self.blocks:
            for layer in (block.attn1.to_out[0], block.attn2.to_out[0], block.ffn.net[2]):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
            with torch.no_grad():
                block.scale_shift_table[:, [2, 5]] = 1
        for layer in (self.proj_out, self.condition_embedder.time_proj):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def rope(self, grid):
        if grid not in self._ropes:
            self._ropes[grid] = rope_table(grid, self.head_dim)
        return self._ropes[grid]

    def forward(self, latents, t, text, counts, tap=None):
        """The velocity, and the hidden states (batch, tokens, dim) after the block numbered `tap`.

        `text` (batch, rows, text_dim) has `counts` valid rows followed by at least one zero row."""
        b, _, frames, h, w = latents.shape
        grid = (frames, h // 2, w // 2)
        x = latents.unflatten(4, (w // 2, 2)).unflatten(3, (h // 2, 2)).permute(0, 2, 3, 5, 1, 4, 6)
        x = F.linear(x.reshape(b, math.prod(grid), -1), self.patch_embedding.weight.flatten(1), self.patch_embedding.bias)
        e, modulation, context = self.condition_embedder(t, text)
        bias = padding_bias(counts, text.shape[1])
        cos, sin = self.rope(grid)
        hidden = None
        for number, block in enumerate(self.blocks):
            x = block(x, context, bias, modulation, cos, sin)
            hidden = x if number == tap else hidden
        shift, scale = (self.scale_shift_table + e[:, None]).chunk(2, 1)
        y = self.proj_out(F.layer_norm(x, (self.dim,), eps=self.eps) * (1 + scale) + shift)
        y = y.view(b, *grid, 2, 2, -1).permute(0, 6, 1, 2, 4, 3, 5)
        return y.reshape(b, -1, frames, h, w), hidden


def padding_bias(counts, rows):
    """Attention bias (batch, 1, 1, rows) with which one padding row represents all padding rows.

    Wan attends to 512 rows, and all rows after the caption are equal. One such row with ln(512 - n)
    added to its logit gets the same share of the attention as all of them.
    """
    i, n = torch.arange(rows)[None], counts[:, None]
    stand_in = torch.log((TEXT_ROWS - n).float())
    bias = torch.where(i < n, 0.0, torch.where(i == n, stand_in, -1e9))
    return bias[:, None, None]
