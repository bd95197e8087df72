"""Blocks over (batch, tokens, width)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import ACTS, Apply, Built, Halves, Join, Repeated, Scale, Step


class Attention(nn.Module):
    """Two heads, in one of eight writings."""

    def __init__(self, width: int, option: int) -> None:
        super().__init__()
        self.option, self.num_heads, self.scale = option, 2, (width // 2) ** -0.5
        self.norm, self.proj = nn.LayerNorm(width), nn.Linear(width, width)
        self.fused = option in (0, 1, 2, 3)
        if self.fused:
            self.qkv = nn.Linear(width, 3 * width, bias=option % 2 == 0)
        else:
            self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        batch, count, width = x.shape
        if not self.fused:
            return tuple(f(x).view(batch, count, self.num_heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        qkv = self.qkv(x)
        if self.option == 0:
            shape = (batch, count, 3, self.num_heads, width // self.num_heads)
            return qkv.reshape(shape).permute(2, 0, 3, 1, 4).unbind(0)
        parts = qkv.chunk(3, -1) if self.option == 1 else qkv.split(width, -1)
        return tuple(t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in parts)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(self.norm(x))
        if self.option in (2, 5):
            y = F.scaled_dot_product_attention(q, k, v)
        elif self.option in (3, 6):
            y = torch.einsum("bhij,bhjd->bhid", torch.einsum("bhid,bhjd->bhij", q * self.scale, k).softmax(-1), v)
        else:
            y = ((q @ k.transpose(-2, -1)) * self.scale).softmax(-1) @ v
        return x + self.proj(y.transpose(1, 2).reshape(x.shape[0], x.shape[1], -1))


class Shared(nn.Module):
    """Four query heads on two key and value heads, with rotary positions."""

    def __init__(self, width: int, head_width: int, option: int) -> None:
        super().__init__()
        self.width, self.option, self.norm = head_width, option, nn.RMSNorm(width)
        self.q = nn.Linear(width, 4 * head_width, bias=False)
        self.k, self.v = (nn.Linear(width, 2 * head_width, bias=False) for _ in range(2))
        self.o = nn.Linear(4 * head_width, width, bias=False)
        speeds = 10.0 ** -(torch.arange(0, head_width, 2) / head_width)
        self.register_buffer("speeds", speeds, persistent=False)

    def rotate(self, x: Tensor) -> Tensor:
        angle = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] * self.speeds
        angle = torch.cat([angle, angle], -1)
        a, b = x.chunk(2, -1)
        return x * angle.cos() + torch.cat([-b, a], -1) * angle.sin()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (f(y).view(*y.shape[:2], -1, self.width).transpose(1, 2) for f in (self.q, self.k, self.v))
        q, k = self.rotate(q), self.rotate(k)
        if self.option % 2:
            k, v = (t.repeat_interleave(2, 1) for t in (k, v))
        else:
            k, v = (t[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, scale=0.5)
        return x + self.o(y.transpose(1, 2).flatten(2))


class Builtin(nn.Module):
    """nn.MultiheadAttention."""

    def __init__(self, width: int, option: int) -> None:
        super().__init__()
        self.weights, self.attention = bool(option % 2), nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(x, x, x, need_weights=self.weights)[0]


class Recurrent(nn.Module):
    """An LSTM or GRU, in one direction or both."""

    def __init__(self, width: int, hidden: int, option: int) -> None:
        super().__init__()
        kind = (nn.LSTM, nn.GRU)[option % 2]
        self.layer = kind(width, hidden, 1 + option // 4 % 2, batch_first=True, bidirectional=bool(option // 2 % 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


class ClassToken(nn.Module):
    """A learned token joins the others, and places are added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        return x


class Experts(nn.Module):
    """Three experts under a softmax gate."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, 3)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)) for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        weights = self.gate(x).softmax(-1)
        return x + sum(weights[..., i : i + 1] * expert(x) for i, expert in enumerate(self.experts))


def linear(width: int, step: Step) -> Built:
    norm = (nn.Identity(), nn.LayerNorm(step.width), nn.RMSNorm(step.width))[step.option % 3]
    return nn.Sequential(nn.Linear(width, step.width), norm, ACTS[step.option % 6]()), step.width


def feed_forward(width: int, step: Step) -> Built:
    up = nn.Sequential(nn.Linear(width, step.width), ACTS[step.option % 6](), nn.Linear(step.width, width))
    return Join("add", -1, nn.Identity(), nn.Sequential(nn.LayerNorm(width), up, Scale(width, last=True))), width


def gated(width: int, step: Step) -> Built:
    how = ("chunk", "slice", "glu")[step.option % 3]
    inner = nn.Sequential(nn.Linear(width, 2 * step.width), Halves(how, -1), nn.Linear(step.width, width))
    return Join("add", -1, nn.Identity(), inner), width


def depthwise(width: int, step: Step) -> Built:
    layer = nn.Conv1d(width, width, 3, padding=1, groups=(width, 2, 1)[step.option % 3])
    turn = Apply(lambda x: x.transpose(1, 2))
    return nn.Sequential(turn, layer, nn.BatchNorm1d(width), Apply(lambda x: x.transpose(1, 2))), width


def shared(width: int, step: Step) -> Built:
    return Shared(width, 4, step.option), width


def recurrent(width: int, step: Step) -> Built:
    return Recurrent(width, step.width, step.option), step.width * (1 + step.option // 2 % 2)


def moved(width: int, step: Step) -> Built:
    moves: list[Callable[[Tensor], Tensor]] = [
        lambda x: x.flip(-1),
        lambda x: x.roll(1, -1),
        lambda x: x.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2),
        lambda x: torch.stack(x.chunk(2, -1), -1).flatten(-2),
        lambda x: x.roll(1, 1),
        lambda x: F.normalize(x, dim=-1),
    ]
    return Apply(moves[step.option % len(moves)]), width


TOKEN: dict[str, Callable[[int, Step], Built]] = {
    "linear": linear,
    "feed_forward": feed_forward,
    "gated": gated,
    "attention": lambda width, step: (Attention(width, step.option % 8), width),
    "builtin": lambda width, step: (Builtin(width, step.option), width),
    "shared": shared,
    "depthwise": depthwise,
    "recurrent": recurrent,
    "moved": moved,
    "experts": lambda width, step: (Experts(width, step.width), width),
    "reused": lambda width, step: (Repeated(nn.Linear(width, width), 1 + step.option % 3), width),
    "scale": lambda width, step: (Scale(width, last=True), width),
}
