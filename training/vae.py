"""The Wan2.1 video autoencoder on whole clips, for training.

Tensors, names and function equal diffusers' AutoencoderKLWan, which processes a clip in chunks of
four frames with a cache for each convolution. Causal zero padding over the whole clip gives the
same results (`tests.py` checks this) and trains several times faster.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

VAE_CONFIG = {
    "base_dim": 8,
    "z_dim": 16,
    "dim_mult": [1, 2, 5, 10],
    "num_res_blocks": 1,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "dropout": 0.0,
}


def _norm_silu_rows(x, gamma):
    """RMS norm and then SiLU of the rows of a matrix."""
    x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-12) * gamma
    return x * torch.sigmoid(x)


norm_silu_rows = _norm_silu_rows


def compile_kernels():
    """Fuses the element-wise work. This is useful for training and needs a C++ compiler."""
    global norm_silu_rows
    torch._dynamo.config.recompile_limit = 64  # one version for each width and use
    norm_silu_rows = torch.compile(_norm_silu_rows, dynamic=True)


def norm_silu(x, gamma):
    """RMS norm over the channels of (b, c, t, h, w), then SiLU. The result has its channels last in
    memory."""
    rows = x.permute(0, 2, 3, 4, 1).contiguous()
    out = norm_silu_rows(rows.view(-1, x.shape[1]), gamma.view(-1))
    return out.view(rows.shape).permute(0, 4, 1, 2, 3)


class CausalConv(nn.Conv3d):
    """A 3-D convolution that sees only the past, with zero padding before the first frame."""

    def __init__(self, cin, cout, kernel, stride=1, pad=True):
        kt, ks = (kernel, kernel) if isinstance(kernel, int) else (kernel[0], kernel[1])
        super().__init__(cin, cout, (kt, ks, ks), stride=(stride, 1, 1), padding=(0, ks // 2, ks // 2))
        self.front = kt - 1 if pad else 0

    def forward(self, x):
        return super().forward(F.pad(x, (0, 0, 0, 0, self.front, 0)) if self.front else x)


class Norm(nn.Module):
    def __init__(self, dim, dims=3):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim, *(1,) * dims))


class ResBlock(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.norm1, self.norm2 = Norm(cin), Norm(cout)
        self.conv1, self.conv2 = CausalConv(cin, cout, 3), CausalConv(cout, cout, 3)
        self.conv_shortcut = CausalConv(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x):
        h = self.conv1(norm_silu(x, self.norm1.gamma))
        return self.conv_shortcut(x) + self.conv2(norm_silu(h, self.norm2.gamma))


class FrameAttention(nn.Module):
    """Single-head attention between the positions of one frame."""

    def __init__(self, dim):
        super().__init__()
        self.norm = Norm(dim, 2)
        self.to_qkv, self.proj = nn.Conv2d(dim, 3 * dim, 1), nn.Conv2d(dim, dim, 1)

    def forward(self, x):
        b, c, t, h, w = x.shape
        y = x.transpose(1, 2).reshape(b * t, c, h, w)
        y = F.normalize(y, dim=1) * c**0.5 * self.norm.gamma
        q, k, v = self.to_qkv(y).flatten(2).transpose(1, 2).unsqueeze(1).chunk(3, -1)
        y = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2)
        y = self.proj(y.reshape(b * t, c, h, w))
        return x + y.reshape(b, t, c, h, w).transpose(1, 2)


class Resample(nn.Module):
    """Halves or doubles height and width, and with `time` also the frames after the first."""

    def __init__(self, dim, up, time):
        super().__init__()
        self.up, self.time = up, time
        conv = nn.Conv2d(dim, dim // 2, 3, padding=1) if up else nn.Conv2d(dim, dim, 3, stride=2)
        self.resample = nn.Sequential(nn.Identity(), conv)  # the conv is number 1, as in diffusers
        if time:
            self.time_conv = CausalConv(dim, 2 * dim, (3, 1)) if up else CausalConv(dim, dim, (3, 1), 2, pad=False)

    def forward(self, x):
        if self.up and self.time:
            x = self._double_frames(x)
        b, c, t, h, w = x.shape
        y = x.transpose(1, 2).reshape(b * t, c, h, w)
        y = F.interpolate(y, scale_factor=2.0, mode="nearest") if self.up else F.pad(y, (0, 1, 0, 1))
        y = self.resample[1](y)
        y = y.reshape(b, t, *y.shape[1:]).transpose(1, 2)
        if not self.up and self.time and t > 1:
            y = torch.cat([y[:, :, :1], self.time_conv(y)], 2)
        return y

    def _double_frames(self, x):
        """Doubles all frames but frame 0, which passes through and is not part of their history."""
        if x.shape[2] == 1:
            return x
        first, rest = x[:, :, :1], self.time_conv(x[:, :, 1:])
        b, c2, t, h, w = rest.shape
        rest = rest.reshape(b, 2, c2 // 2, t, h, w).permute(0, 2, 3, 1, 4, 5).reshape(b, c2 // 2, 2 * t, h, w)
        return torch.cat([first, rest], 2)


class Middle(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.attentions = nn.ModuleList([FrameAttention(dim)])
        self.resnets = nn.ModuleList([ResBlock(dim, dim), ResBlock(dim, dim)])

    def forward(self, x):
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Encoder(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        dims = [cfg["base_dim"] * m for m in [1, *cfg["dim_mult"]]]
        blocks = []
        for level, (cin, cout) in enumerate(zip(dims, dims[1:])):
            for i in range(cfg["num_res_blocks"]):
                blocks.append(ResBlock(cin if i == 0 else cout, cout))
            if level + 2 < len(dims):
                blocks.append(Resample(cout, up=False, time=cfg["temperal_downsample"][level]))
        self.conv_in = CausalConv(3, dims[0], 3)
        self.down_blocks = nn.ModuleList(blocks)
        self.mid_block = Middle(dims[-1])
        self.norm_out = Norm(dims[-1])
        self.conv_out = CausalConv(dims[-1], 2 * cfg["z_dim"], 3)

    def forward(self, x):
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(norm_silu(self.mid_block(x), self.norm_out.gamma))


class UpBlock(nn.Module):
    def __init__(self, cin, cout, res_blocks, time):
        """`time` is None for a block without upsampling."""
        super().__init__()
        self.resnets = nn.ModuleList(ResBlock(cin if i == 0 else cout, cout) for i in range(res_blocks))
        if time is not None:
            self.upsamplers = nn.ModuleList([Resample(cout, up=True, time=time)])

    def forward(self, x):
        for block in self.resnets:
            x = block(x)
        return self.upsamplers[0](x) if hasattr(self, "upsamplers") else x


class Decoder(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        dims = [cfg["base_dim"] * m for m in reversed(cfg["dim_mult"])]
        times = [*reversed(cfg["temperal_downsample"]), None]
        inputs = [dims[0], *(d // 2 for d in dims[:-1])]
        self.conv_in = CausalConv(cfg["z_dim"], dims[0], 3)
        self.mid_block = Middle(dims[0])
        self.up_blocks = nn.ModuleList(
            UpBlock(cin, cout, cfg["num_res_blocks"] + 1, time) for cin, cout, time in zip(inputs, dims, times)
        )
        self.norm_out = Norm(dims[-1])
        self.conv_out = CausalConv(dims[-1], 3, 3)

    def forward(self, z):
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(norm_silu(x, self.norm_out.gamma))


class VideoVAE(nn.Module):
    """Maps videos (batch, 3, 1 + 4 n, height, width) in [-1, 1] to latents (batch, 16, 1 + n,
    height/8, width/8)."""

    def __init__(self, cfg=VAE_CONFIG):
        super().__init__()
        z = cfg["z_dim"]
        self.encoder, self.decoder = Encoder(cfg), Decoder(cfg)
        self.quant_conv, self.post_quant_conv = CausalConv(2 * z, 2 * z, 1), CausalConv(z, z, 1)
        for module in self.modules():  # every residual branch starts at zero
            if isinstance(module, ResBlock):
                nn.init.zeros_(module.conv2.weight)
                nn.init.zeros_(module.conv2.bias)
            elif isinstance(module, FrameAttention):
                nn.init.zeros_(module.proj.weight)

    def encode(self, video):
        """The mean of the posterior. The variance is fixed and not used."""
        return self.quant_conv(self.encoder(video)).chunk(2, 1)[0]

    def decode(self, z):
        return self.decoder(self.post_quant_conv(z))
