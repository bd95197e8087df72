"""Residual sums, concatenations, multi-scale joins, and networks whose parts run only sometimes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, cat, nn

from .base import Pattern, image


def unit(inputs: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())


class Residual(nn.Module):
    """Two residual blocks, the second with a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = unit(3, 8), unit(8, 8), unit(8, 8)
        self.c, self.down, self.head = unit(8, 16, 2), nn.Conv2d(8, 16, 1, 2), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.b(self.a(x))
        x = F.relu(self.c(x) + self.down(x))
        return self.head(x.mean((2, 3)))


class OptionA(nn.Module):
    """The CIFAR ResNet shortcut: a strided slice, padded with zero channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b, self.head = unit(3, 8), unit(8, 16, 2), unit(16, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        return self.head(F.relu(self.b(self.a(x)) + short).mean((2, 3)))


class Dense(nn.Module):
    """DenseNet: every layer reads the concatenation of all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(unit(8 + 4 * i, 4) for i in range(3))
        self.stem, self.norm, self.head = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(20), nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        seen = [self.stem(x)]
        for layer in self.layers:
            seen.append(layer(cat(seen, 1)))
        return self.head(self.norm(cat(seen, 1)).relu().mean((2, 3)))


class UNet(nn.Module):
    """Two levels with concatenated skips."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = unit(3, 4), unit(4, 8), unit(8, 16)
        self.up1, self.d1 = nn.ConvTranspose2d(16, 8, 2, 2), unit(16, 8)
        self.up2, self.d2, self.head = nn.ConvTranspose2d(8, 4, 2, 2), unit(8, 4), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.a(x)
        two = self.b(F.max_pool2d(one, 2))
        low = self.c(F.max_pool2d(two, 2))
        two = self.d1(cat([two, self.up1(low)], 1))
        return self.head(self.d2(cat([one, self.up2(two)], 1)))


class Inception(nn.Module):
    """Four branches, concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = unit(3, 8), unit(8, 4), nn.Sequential(unit(8, 4), unit(4, 8))
        self.c, self.head = nn.Conv2d(8, 4, 1), nn.Conv2d(24, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        pooled = F.max_pool2d(x, 3, 1, 1)
        return self.head(cat([self.a(x), self.b(x), self.c(pooled), pooled], 1))


class Pyramid(nn.Module):
    """FPN: laterals added to upsampled coarser maps; one head for all levels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = unit(3, 4), unit(4, 8, 2), unit(8, 16, 2)
        self.laterals = nn.ModuleList(nn.Conv2d(n, 8, 1) for n in (4, 8, 16))
        self.smooth, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = [self.a(x)]
        maps += [self.b(maps[0])]
        maps += [self.c(maps[1])]
        top = self.laterals[2](maps[2])
        out = [top]
        for lateral, fine in zip(self.laterals[1::-1], maps[1::-1], strict=False):
            top = lateral(fine) + F.interpolate(top, size=fine.shape[-2:])
            out.append(top)
        return tuple(self.head(self.smooth(level).relu()) for level in out)


class MultiScale(nn.Module):
    """HRNet: two resolutions exchange sums."""

    def __init__(self) -> None:
        super().__init__()
        self.high, self.low = unit(3, 4), unit(3, 8, 2)
        self.down, self.up = nn.Conv2d(4, 8, 3, 2, 1), nn.Conv2d(8, 4, 1)
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        high, low = self.high(x), self.low(x)
        high, low = high + F.interpolate(self.up(low), scale_factor=2.0), low + self.down(high)
        return self.head(cat([high, F.interpolate(low, scale_factor=2.0, mode="bilinear")], 1))


class CrossStage(nn.Module):
    """CSP: half of the channels go round the block."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.stem, self.block, self.head = unit(3, 8), unit(4, 4), nn.Conv2d(8, 4, 1)

    def halves(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.how == "chunk":
            return x.chunk(2, 1)
        if self.how == "split":
            return x.split(4, dim=1)
        if self.how == "half":
            half = x.shape[1] // 2
            return x[:, :half], x[:, half:]
        return x[:, :4], x[:, 4:]

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.halves(self.stem(x))
        return self.head(cat([self.block(a), b], 1))


class Crossing(nn.Module):
    """Concatenated at 8 + 12, split at 6 + 14: three shared parts."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = (6, 14)
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 12, 1)
        self.c, self.d = nn.Conv2d(6, 4, 1), nn.Conv2d(14, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = cat([self.a(x), self.b(x)], 1).relu().split(self.sizes, 1)
        return self.c(left) + self.d(right)


class Ghost(nn.Module):
    """GhostNet: cheap depthwise copies, concatenated and cut to length."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.cheap, self.head = unit(3, 4), nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(cat([x, self.cheap(x)], 1)[:, :8])


class Stacked(nn.Module):
    """Branches stacked on a new dimension, then reduced."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.branches, self.head = nn.ModuleList(nn.Conv2d(3, 8, 1) for _ in range(2)), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        stack = torch.stack([branch(x) for branch in self.branches], dim=1)
        joined = stack.sum(1) if self.how == "sum" else stack.amax(1) if self.how == "max" else stack.prod(1)
        return self.head(joined.relu())


class TwoStream(nn.Module):
    """Two inputs, joined by product and maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = unit(3, 8), unit(8, 8), nn.Linear(16, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        a, b = self.a(x), self.b(y)
        return self.head(cat([(a * b).mean((2, 3)), torch.maximum(a, b).mean((2, 3))], 1))


class StochasticDepth(nn.Module):
    """A residual branch that training drops at random."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.head, self.keep = unit(3, 8), unit(8, 8), nn.Linear(8, 4), 0.8

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        branch = self.block(x)
        if self.training:
            branch = branch * x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(self.keep).div_(self.keep)
        return self.head(F.dropout(x + branch, 0.2, self.training).mean((2, 3)))


class Auxiliary(nn.Module):
    """A second head that runs only in training."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = unit(3, 8), unit(8, 8), nn.Linear(8, 4)
        self.side, self.aux = nn.Conv2d(8, 6, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.stem(x)
        out = self.head(self.body(x).mean((2, 3)))
        return (out, self.aux(self.side(x).relu().mean((2, 3)))) if self.training else out


PATTERNS = [
    Pattern(name="residual", make=Residual, example=image(), expect=3),
    Pattern(name="option_a_shortcut", make=OptionA, example=image(), expect=2),
    Pattern(name="dense_concat", make=Dense, example=image(), expect=4),
    Pattern(name="unet", make=UNet, example=image(), expect=7),
    Pattern(name="inception", make=Inception, example=image(), expect=5),
    Pattern(name="feature_pyramid", make=Pyramid, example=image(), expect=5),
    Pattern(name="multi_scale", make=MultiScale, example=image(), expect=2),
    *(
        Pattern(name=f"cross_stage_{how}", make=lambda how=how: CrossStage(how), example=image(), expect=expect)
        for how, expect in {"chunk": 2, "split": 1, "half": 2, "slice": 1}.items()
    ),
    Pattern(name="cat_then_split_across", make=Crossing, example=image(), expect=1),
    Pattern(name="ghost", make=Ghost, example=image(), expect=1),
    *(
        Pattern(name=f"stack_{how}", make=lambda how=how: Stacked(how), example=image(), expect=1)
        for how in ("sum", "max", "prod")
    ),
    Pattern(
        name="two_stream", make=TwoStream, example=lambda: (torch.randn(2, 3, 8, 8), torch.randn(2, 8, 8, 8)), expect=1
    ),
    Pattern(name="stochastic_depth", make=StochasticDepth, example=image(), expect=1),
    Pattern(name="auxiliary_head", make=Auxiliary, example=image(), expect=3),
]
