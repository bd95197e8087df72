"""Gating, squeeze-excite, feed-forward variants and mixtures of experts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Pattern, image, tokens


class FeedForward(nn.Module):
    """The gated feed-forward layers of language models."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.stem, self.head = how, nn.Linear(4, 8), nn.Linear(8, 4)
        self.both = nn.Linear(8, 24)
        self.gate, self.up, self.down = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 8)
        del_names = ("both",) if how == "separate" else ("gate", "up")
        for name in del_names:
            delattr(self, name)

    def hidden(self, x: Tensor) -> Tensor:
        if self.how == "separate":
            return F.silu(self.gate(x)) * self.up(x)
        if self.how == "glu":
            return F.glu(self.both(x), dim=-1)
        if self.how == "halves":
            both = self.both(x)
            return F.gelu(both[..., :12]) * both[..., 12:]
        if self.how == "interleaved":
            both = self.both(x)
            return F.silu(both[..., ::2]) * both[..., 1::2]
        gate, up = self.both(x).chunk(2, dim=-1)
        return F.silu(gate) * up

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.down(self.hidden(x)))


class SqueezeExcite(nn.Module):
    """Channel gates from pooled channels, by convolution or by linear layers."""

    def __init__(self, *, linear: bool) -> None:
        super().__init__()
        self.linear, self.one, self.two = linear, nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        self.squeeze = nn.Linear(8, 4) if linear else nn.Conv2d(8, 4, 1)
        self.excite = nn.Linear(4, 8) if linear else nn.Conv2d(4, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        pooled = x.mean((2, 3)) if self.linear else F.adaptive_avg_pool2d(x, 1)
        gate = self.excite(self.squeeze(pooled).relu()).sigmoid()
        return self.two(x * (gate[:, :, None, None] if self.linear else gate))


class ChannelConv(nn.Module):
    """ECA: a convolution along the channel axis; neighbours matter, so the channels must stay."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.conv, self.two = (
            nn.Conv2d(3, 8, 1),
            nn.Conv1d(1, 1, 3, padding=1, bias=False),
            nn.Conv2d(8, 6, 1),
        )
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        gate = self.conv(x.mean((2, 3)).unsqueeze(1)).squeeze(1).sigmoid()
        return self.head(self.two(x * gate[:, :, None, None]).relu())


class SpatialGate(nn.Module):
    """CBAM: the mean and maximum over channels gate every position."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.gate, self.two = nn.Conv2d(3, 8, 1), nn.Conv2d(2, 1, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return self.two(x * self.gate(seen).sigmoid())


class SelectiveKernel(nn.Module):
    """SKNet: softmax over two branches, channel by channel."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 5, padding=2)
        self.squeeze, self.choose, self.head = nn.Linear(8, 4), nn.Linear(4, 16), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.stack([self.a(x), self.b(x)], dim=1)
        pooled = both.sum(1).mean((2, 3))
        weights = self.choose(self.squeeze(pooled).relu()).view(x.shape[0], 2, -1).softmax(1)
        return self.head((both * weights[..., None, None]).sum(1))


class SpatialUnit(nn.Module):
    """gMLP: half the channels, mixed over tokens, gate the other half."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up, self.norm = nn.Linear(4, 8), nn.Linear(8, 16), nn.LayerNorm(8)
        self.mix, self.down, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        u, v = F.gelu(self.up(x)).chunk(2, dim=-1)
        v = self.mix(self.norm(v).transpose(1, 2)).transpose(1, 2)
        return self.head(x + self.down(u * v))


class Modulation(nn.Module):
    """FiLM: one linear layer writes scale and shift of another branch's channels."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text, self.two = nn.Conv2d(3, 8, 1), nn.Linear(4, 16), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.text(condition)[..., None, None].chunk(2, dim=1)
        return self.two(self.image(x) * (1 + scale) + shift)


def feed_forwards(count: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8)) for _ in range(count))


class DenseExperts(nn.Module):
    """Every expert runs; a softmax gate weighs them."""

    def __init__(self, experts: int = 3) -> None:
        super().__init__()
        self.stem, self.gate, self.head = nn.Linear(4, 8), nn.Linear(8, experts), nn.Linear(8, 4)
        self.experts = feed_forwards(experts)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        weights = self.gate(x).softmax(-1)
        return self.head(x + sum(weights[..., i : i + 1] * expert(x) for i, expert in enumerate(self.experts)))


class TopExperts(nn.Module):
    """Each token visits its two best experts; results return by index_add (Mixtral)."""

    def __init__(self, experts: int = 4) -> None:
        super().__init__()
        self.stem, self.gate, self.head = nn.Linear(4, 8), nn.Linear(8, experts), nn.Linear(8, 4)
        self.experts = feed_forwards(experts)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        flat = x.reshape(-1, x.shape[-1])
        weights, chosen = self.gate(flat).softmax(-1).topk(2, dim=-1)
        out = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            rows, place = torch.where(chosen == number)
            out.index_add_(0, rows, expert(flat[rows]) * weights[rows, place, None])
        return self.head(x + out.view_as(x))


class StackedExperts(nn.Module):
    """Experts as one 3-D parameter, contracted by einsum and by bmm."""

    def __init__(self, experts: int = 3) -> None:
        super().__init__()
        self.stem, self.gate, self.head = nn.Linear(4, 8), nn.Linear(8, experts), nn.Linear(8, 4)
        self.up, self.down = nn.Parameter(torch.randn(experts, 8, 12)), nn.Parameter(torch.randn(experts, 12, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        hidden = torch.einsum("bnd,edh->ebnh", x, self.up).relu()
        back = torch.bmm(hidden.flatten(1, 2), self.down).view(-1, *x.shape)
        return self.head(torch.einsum("ebnd,bne->bnd", back, self.gate(x).softmax(-1)))


PATTERNS = [
    *(
        Pattern(name=f"feed_forward_{how}", make=lambda how=how: FeedForward(how), example=tokens(4, 4), expect=expect)
        for how, expect in {"separate": 2, "glu": 2, "chunk": 2, "halves": 1, "interleaved": 1}.items()
    ),
    Pattern(name="squeeze_excite_conv", make=lambda: SqueezeExcite(linear=False), example=image(), expect=2),
    Pattern(name="squeeze_excite_linear", make=lambda: SqueezeExcite(linear=True), example=image(), expect=2),
    Pattern(name="channel_convolution", make=ChannelConv, example=image(), expect=1),
    Pattern(name="spatial_gate", make=SpatialGate, example=image(), expect=0, zero_ok=False),
    Pattern(name="selective_kernel", make=SelectiveKernel, example=image(), expect=2),
    Pattern(name="spatial_unit", make=SpatialUnit, example=tokens(8, 4), expect=2),
    Pattern(name="modulation", make=Modulation, example=lambda: (torch.randn(2, 3, 8, 8), torch.randn(2, 4)), expect=1),
    Pattern(name="experts_dense", make=DenseExperts, example=tokens(4, 4), expect=4, zero_ok=False),
    Pattern(name="experts_top", make=TopExperts, example=tokens(4, 4), expect=4, zero_ok=False),
    Pattern(name="experts_stacked", make=StackedExperts, example=tokens(4, 4), expect=2, zero_ok=False),
]
