"""Self-attention in every common writing. Width 8 = 2 heads x 4 = tokens 4 x batch 2."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Pattern, tokens

Heads = tuple[Tensor, Tensor, Tensor]


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return ((q @ k.transpose(-2, -1)) * scale).softmax(-1) @ v


class Fused(nn.Module):
    """timm's attention: one qkv layer, reshape, permute, unbind; scale from the head's width."""

    def __init__(self, how: str = "unbind", *, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.how, self.num_heads, self.head_dim = how, heads, width // heads
        self.scale = self.head_dim**-0.5
        self.stem, self.qkv, self.proj = nn.Linear(4, width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.head = nn.Linear(width, 4)

    def heads(self, x: Tensor) -> Heads:
        batch, count, width = x.shape
        qkv = self.qkv(x)
        if self.how == "chunk":
            q, k, v = (t.view(batch, count, self.num_heads, -1).transpose(1, 2) for t in qkv.chunk(3, dim=-1))
        elif self.how == "split":
            q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in qkv.split(width, dim=-1))
        elif self.how == "per_head":
            qkv = qkv.view(batch, count, self.num_heads, 3 * self.head_dim).transpose(1, 2)
            q, k, v = qkv.chunk(3, dim=-1)
        elif self.how == "index":
            qkv = qkv.reshape(batch, count, 3, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4)
            q, k, v = qkv[0], qkv[1], qkv[2]
        else:
            qkv = qkv.reshape(batch, count, 3, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4)
            q, k, v = qkv.unbind(0)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        batch, count, width = x.shape
        y = softmax_attention(*self.heads(x), self.scale)
        return self.head(x + self.proj(y.transpose(1, 2).reshape(batch, count, width)))


class Separate(nn.Module):
    """Separate q, k, v layers; ``core`` computes attention on (batch, heads, tokens, width)."""

    def __init__(self, core: Callable[[Tensor, Tensor, Tensor], Tensor], *, bias: bool = True) -> None:
        super().__init__()
        self.core, self.heads = core, 2
        self.stem, self.norm = nn.Linear(4, 8), nn.LayerNorm(8)
        self.q, self.k, self.v = (nn.Linear(8, 8, bias=bias) for _ in range(3))
        self.proj, self.head = nn.Linear(8, 8), nn.Linear(8, 4)

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(x)
        y = self.core(self.split(self.q(y)), self.split(self.k(y)), self.split(self.v(y)))
        return self.head(x + self.proj(y.transpose(1, 2).flatten(2)))


def by_einsum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = torch.einsum("bhid,bhjd->bhij", q, k).mul(0.5).softmax(-1)
    return torch.einsum("bhij,bhjd->bhid", weights, v)


def by_bmm(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    batch, heads, count, _ = q.shape
    q, k, v = (t.reshape(batch * heads, count, -1) for t in (q, k, v))
    weights = torch.bmm(q, k.transpose(1, 2)).div(2.0).softmax(-1)
    return torch.bmm(weights, v).view(batch, heads, count, -1)


def by_baddbmm(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    batch, heads, count, _ = q.shape
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    empty = torch.zeros(batch * heads, count, count, dtype=q.dtype)
    weights = torch.baddbmm(empty, q, k.transpose(1, 2), beta=0.0, alpha=0.5).softmax(-1)
    return torch.bmm(weights, v).unflatten(0, (batch, heads))


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    mask = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool).tril()
    scores = (q @ k.mT / 2.0).masked_fill(~mask, float("-inf"))
    return F.dropout(scores.softmax(-1), 0.0) @ v


def width_in_forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT / math.sqrt(q.size(-1))).softmax(-1) @ v


def cosine(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT).mul(4.0).softmax(-1) @ v


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k = F.elu(q) + 1, F.elu(k) + 1
    return relu_attention(q, k, v)


def relu_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k = F.relu(q), F.relu(k)
    return torch.einsum("bhnd,bhde->bhne", q, torch.einsum("bhnd,bhne->bhde", k, v))


def channel_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """XCiT: attention among channels, not tokens."""
    q, k, v = (t.transpose(-2, -1) for t in (q, k, v))
    return ((F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT).softmax(-1) @ v).transpose(-2, -1)


class Builtin(nn.Module):
    """nn.MultiheadAttention, on either path."""

    def __init__(self, *, weights: bool, batch_first: bool, kv_width: int | None = None, bias: bool = True) -> None:
        super().__init__()
        self.weights, self.stem = weights, nn.Linear(4, 8)
        self.other = nn.Linear(4, kv_width or 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first, kdim=kv_width, vdim=kv_width, bias=bias)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        q, kv = self.stem(x), self.other(x)
        y, _ = self.attention(q, kv, kv, need_weights=self.weights)
        return self.head(q + y)


class SelfBuiltin(nn.Module):
    """nn.MultiheadAttention on one input, with its averaged weights in the output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.attention, self.head = (
            nn.Linear(4, 8),
            nn.MultiheadAttention(8, 2, batch_first=True),
            nn.Linear(8, 4),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        y, weights = self.attention(x, x, x)
        return self.head(y), weights


class Encoder(nn.Module):
    """torch.nn's own encoder layers."""

    def __init__(self, *, norm_first: bool, layers: int = 1) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True, norm_first=norm_first)
        self.stem, self.head = nn.Linear(4, 8), nn.Linear(8, 4)
        self.body = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)))


class Decoder(nn.Module):
    """torch.nn's decoder layer: self and cross attention."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(4, 8), nn.Linear(8, 4)
        self.body = nn.TransformerDecoderLayer(8, 2, 16, 0.0, batch_first=True)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x), self.stem(memory)))


CORES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "attention_matmul": lambda q, k, v: softmax_attention(q, k, v, 0.5),
    "attention_einsum": by_einsum,
    "attention_bmm": by_bmm,
    "attention_baddbmm": by_baddbmm,
    "attention_causal_fill": causal,
    "attention_sdpa": F.scaled_dot_product_attention,
    "attention_sdpa_scale": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.3),
    "attention_sdpa_causal": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    "attention_width_in_forward": width_in_forward,
    "attention_cosine": cosine,
    "attention_linear": linear_attention,
    "attention_linear_relu": relu_attention,
    "attention_channels": channel_attention,
}
STATISTICS = {"attention_channels"}
NOT_ZERO_AT_ZERO = {"attention_linear": "elu(0) + 1 is 1, on both sides of a product"}


def twice(x: Callable[[], Tensor]) -> Callable[[], tuple[Tensor, Tensor]]:
    return lambda: (x(), x())


PATTERNS = [
    *(
        Pattern(name=f"attention_fused_{how}", make=lambda how=how: Fused(how), example=tokens(4, 4), expect=2)
        for how in ("unbind", "index", "chunk", "split", "per_head")
    ),
    *(
        Pattern(
            name=name,
            make=lambda core=core: Separate(core),
            example=tokens(4, 4),
            expect=3,
            zero_ok=name not in STATISTICS,
            unmaskable=NOT_ZERO_AT_ZERO.get(name, ""),
        )
        for name, core in CORES.items()
    ),
    Pattern(
        name="attention_no_bias",
        make=lambda: Separate(F.scaled_dot_product_attention, bias=False),
        example=tokens(4, 4),
        expect=3,
    ),
    *(
        Pattern(
            name=f"multihead_{'weights' if weights else 'sdpa'}_{'batch' if first else 'time'}_first",
            make=lambda weights=weights, first=first: Builtin(weights=weights, batch_first=first),
            example=tokens(4, 4),
            expect=2,
        )
        for weights in (True, False)
        for first in (True, False)
    ),
    Pattern(
        name="multihead_other_width",
        make=lambda: Builtin(weights=False, batch_first=True, kv_width=6),
        example=tokens(4, 4),
        expect=2,
    ),
    Pattern(
        name="multihead_no_bias",
        make=lambda: Builtin(weights=True, batch_first=True, bias=False),
        example=tokens(4, 4),
        expect=2,
    ),
    Pattern(name="multihead_self", make=SelfBuiltin, example=tokens(4, 4), expect=1, zero_ok=False),
    Pattern(name="encoder_layer", make=lambda: Encoder(norm_first=False), example=tokens(4, 4), expect=2),
    Pattern(name="encoder_norm_first", make=lambda: Encoder(norm_first=True, layers=2), example=tokens(4, 4), expect=3),
    Pattern(name="decoder_layer", make=Decoder, example=twice(tokens(4, 4)), expect=2),
]
