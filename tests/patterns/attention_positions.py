"""Attention with shared heads, positions, windows, masks and class tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Pattern, ids, image, tokens


def half_rotary(x: Tensor, angle: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return x * angle.cos() + torch.cat((-b, a), dim=-1) * angle.sin()


def pair_rotary(x: Tensor, angle: Tensor) -> Tensor:
    a, b = x[..., ::2], x[..., 1::2]
    return x * angle.cos() + torch.stack((-b, a), dim=-1).flatten(-2) * angle.sin()


class Shared(nn.Module):
    """Grouped queries: 4 query heads of width 4 read 2 (or 1) key and value heads; optionally rotary."""

    def __init__(self, repeat: str = "repeat_interleave", *, kv_heads: int = 2, rotary: str = "") -> None:
        super().__init__()
        self.repeat, self.rotary, self.heads, self.kv_heads, self.width = repeat, rotary, 4, kv_heads, 4
        self.table, self.norm = nn.Embedding(8, 8), nn.RMSNorm(8)
        self.q = nn.Linear(8, 16, bias=False)
        self.k, self.v = (nn.Linear(8, 4 * kv_heads, bias=False) for _ in range(2))
        self.o, self.out = nn.Linear(16, 8, bias=False), nn.Linear(8, 8, bias=False)
        speeds = 1.0 / (10.0 ** (torch.arange(0, 4, 2) / 4))
        self.register_buffer("speeds", speeds, persistent=False)

    def spread(self, x: Tensor) -> Tensor:
        times = self.heads // self.kv_heads
        if self.repeat == "repeat_interleave":
            return x.repeat_interleave(times, dim=1)
        batch, heads, count, width = x.shape
        return x[:, :, None].expand(batch, heads, times, count, width).reshape(batch, heads * times, count, width)

    def rotate(self, x: Tensor) -> Tensor:
        if not self.rotary:
            return x
        angle = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] * self.speeds.to(x.dtype)
        if self.rotary == "halves":
            return half_rotary(x, torch.cat((angle, angle), dim=-1))
        return pair_rotary(x, angle.repeat_interleave(2, dim=-1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.table(x)
        y = self.norm(x)
        q, k, v = (f(y).view(*y.shape[:2], -1, self.width).transpose(1, 2) for f in (self.q, self.k, self.v))
        q, k = self.rotate(q), self.rotate(k)
        if self.repeat == "broadcast":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.5)
        elif self.repeat == "enable_gqa":
            y = F.scaled_dot_product_attention(q, k, v, scale=0.5, enable_gqa=True)
        else:
            y = F.scaled_dot_product_attention(q, self.spread(k), self.spread(v), is_causal=True, scale=0.5)
        return self.out(x + self.o(y.transpose(1, 2).reshape(*x.shape[:2], -1)))


class Window(nn.Module):
    """Swin: (shifted) windows of 2 x 2, a table of relative positions, a mask, patch merging."""

    def __init__(self, shift: int = 0) -> None:
        super().__init__()
        self.shift, self.window, self.heads = shift, 2, 2
        self.stem, self.norm = nn.Conv2d(3, 8, 2, 2), nn.LayerNorm(8)
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.table = nn.Parameter(torch.randn(9, 2) * 0.1)
        place = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")).flatten(1)
        apart = (place[:, :, None] - place[:, None, :] + 1).permute(1, 2, 0)
        self.register_buffer("index", apart[..., 0] * 3 + apart[..., 1])
        self.merge_norm, self.merge, self.head = nn.LayerNorm(32), nn.Linear(32, 12, bias=False), nn.Linear(12, 4)

    def attend(self, x: Tensor) -> Tensor:
        count, size, width = x.shape
        q, k, v = self.qkv(x).reshape(count, size, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        bias = self.table[self.index.view(-1)].view(4, 4, -1).permute(2, 0, 1).unsqueeze(0)
        scores = (q * 0.5) @ k.transpose(-2, -1) + bias
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(count, size, width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        batch, height, width, channels = x.shape
        y = torch.roll(self.norm(x), (-self.shift, -self.shift), (1, 2))
        w = self.window
        y = (
            y.view(batch, height // w, w, width // w, w, channels)
            .permute(0, 1, 3, 2, 4, 5)
            .reshape(-1, w * w, channels)
        )
        y = self.attend(y).view(batch, height // w, width // w, w, w, channels).permute(0, 1, 3, 2, 4, 5)
        x = x + torch.roll(y.reshape(batch, height, width, channels), (self.shift, self.shift), (1, 2))
        parts = [x[:, a::2, b::2] for b in (0, 1) for a in (0, 1)]
        return self.head(self.merge(self.merge_norm(torch.cat(parts, -1))).mean((1, 2)))


class Vision(nn.Module):
    """ViT: patches, class token, position table, scaled residual branches, token mean or class token out."""

    def __init__(self, *, mean: bool = False) -> None:
        super().__init__()
        self.mean, self.heads = mean, 2
        self.patch, self.cls = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.zeros(1, 1, 8))
        self.place = nn.Parameter(torch.randn(1, 5, 8) * 0.1)
        self.n1, self.qkv, self.proj = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.n2, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.s1, self.s2 = nn.Parameter(torch.full((8,), 1e-5)), nn.Parameter(torch.full((8,), 1e-5))
        self.last, self.head = nn.LayerNorm(8), nn.Linear(8, 4)

    def attend(self, x: Tensor) -> Tensor:
        batch, count, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(batch, count, width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1) + self.place
        x = x + self.s1 * self.attend(self.n1(x))
        x = self.last(x + self.s2 * self.down(F.gelu(self.up(self.n2(x)))))
        return self.head(x[:, 1:].mean(1) if self.mean else x[:, 0])


class RelativeBias(nn.Module):
    """T5: a bucket embedding gives each head its bias."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.table, self.bias = 2, nn.Embedding(8, 8), nn.Embedding(7, 2)
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8, bias=False) for _ in range(4))
        self.out = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.table(x)
        q, k, v = (f(x).view(*x.shape[:2], self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        place = torch.arange(x.shape[1])
        bias = self.bias(place[None] - place[:, None] + 3).permute(2, 0, 1)[None]
        y = (q @ k.mT + bias).softmax(-1) @ v
        return self.out(x + self.o(y.transpose(1, 2).flatten(2)))


class Slopes(nn.Module):
    """ALiBi: a constant slope a head; heads stay, everything else goes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.qkv, self.proj, self.head = nn.Linear(4, 8), nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 4)
        self.register_buffer("slopes", torch.tensor([0.5, 0.25]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        q, k, v = (t.unflatten(-1, (2, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        apart = torch.arange(x.shape[1])[None] - torch.arange(x.shape[1])[:, None]
        bias = self.slopes[:, None, None] * -apart.abs()
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None], scale=0.5)
        return self.head(x + self.proj(y.transpose(1, 2).flatten(2)))


class PooledKeys(nn.Module):
    """PVT: keys and values from a strided convolution of the map; convolutional attention in 2-D."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.reduce, self.norm = nn.Conv2d(3, 8, 2, 2), nn.Conv2d(8, 8, 2, 2), nn.LayerNorm(8)
        self.q, self.kv, self.proj, self.head = nn.Linear(8, 8), nn.Linear(8, 16), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        small = self.norm(self.reduce(x).flatten(2).transpose(1, 2))
        x = x.flatten(2).transpose(1, 2)
        batch, count, width = x.shape
        q = self.q(x).reshape(batch, count, 2, width // 2).transpose(1, 2)
        k, v = self.kv(small).reshape(batch, -1, 2, 2, width // 2).permute(2, 0, 3, 1, 4)
        y = ((q @ k.mT) * 0.5).softmax(-1) @ v
        return self.head(x + self.proj(y.transpose(1, 2).reshape(batch, count, width)))


class QueryPool(nn.Module):
    """A learned query reads all tokens (attention pooling); one head, no reshape."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.kv, self.query, self.head = (
            nn.Linear(4, 8),
            nn.Linear(8, 16),
            nn.Parameter(torch.randn(1, 1, 8)),
            nn.Linear(8, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        k, v = self.kv(self.stem(x).relu()).chunk(2, -1)
        return self.head((self.query @ k.mT).softmax(-1) @ v)


class CodeHeads(nn.Module):
    """Query norm and key norm over each head's width."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.qkv, self.proj, self.head = nn.Linear(4, 8), nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 4)
        self.qn, self.kn = nn.LayerNorm(4), nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(self.qn(q), self.kn(k), v)
        return self.head(x + self.proj(y.transpose(1, 2).flatten(2)))


PATTERNS = [
    Pattern(name="gqa_repeat_interleave", make=Shared, example=ids(), expect=3),
    Pattern(name="gqa_expand", make=lambda: Shared("expand"), example=ids(), expect=3),
    Pattern(name="gqa_builtin", make=lambda: Shared("enable_gqa"), example=ids(), expect=2),
    Pattern(name="mqa_broadcast", make=lambda: Shared("broadcast", kv_heads=1), example=ids(), expect=3),
    Pattern(name="mqa_expand", make=lambda: Shared("expand", kv_heads=1), example=ids(), expect=3),
    Pattern(name="rotary_halves", make=lambda: Shared(rotary="halves"), example=ids(), expect=3),
    Pattern(name="rotary_pairs", make=lambda: Shared("expand", rotary="pairs"), example=ids(), expect=3),
    Pattern(name="windows_attention", make=Window, example=image(), expect=3),
    Pattern(name="windows_shifted", make=lambda: Window(1), example=image(), expect=3),
    Pattern(name="vision_cls_token", make=Vision, example=image(), expect=3),
    Pattern(name="vision_token_mean", make=lambda: Vision(mean=True), example=image(), expect=3),
    Pattern(name="relative_bias", make=RelativeBias, example=ids(), expect=3),
    Pattern(name="alibi_slopes", make=Slopes, example=tokens(4, 4), expect=2),
    Pattern(name="pooled_keys", make=PooledKeys, example=image(), expect=3),
    Pattern(name="query_pool", make=QueryPool, example=tokens(4, 4), expect=3),
    Pattern(name="query_key_norm", make=CodeHeads, example=tokens(4, 4), expect=2),
]
