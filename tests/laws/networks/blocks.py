"""Blocks of random networks: each maps (inputs' width, step) to a module and its outputs' width.

Every width is even, so that halves and two heads always exist. Widths collide with the batch (2), the image (8 x 8) and
the token count on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import mul
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations


@dataclass(frozen=True)
class Step:
    """One block of a random network, as plain data.

    Attributes:
        kind: which block.
        width: a size that the block may use for what it makes.
        option: which of its variants.
        branches: of a join, each a sequence of steps.
    """

    kind: str
    width: int
    option: int = 0
    branches: tuple[tuple[Step, ...], ...] = ()


Built = tuple[nn.Module, int]
ACTS = (nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Identity, nn.Hardswish)


class Apply(nn.Module):
    """A function in a module's place."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Join(nn.Module):
    """Branches on one input, joined along channels (dimension ``dim``) or element by element."""

    def __init__(self, how: str, dim: int, *branches: nn.Module) -> None:
        super().__init__()
        self.how, self.dim, self.branches = how, dim, nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        results = [branch(x) for branch in self.branches]
        if self.how == "cat":
            return torch.cat(results, self.dim)
        if self.how == "stack":
            return torch.stack(results, 0).mean(0)
        first = results[0]
        for other in results[1:]:
            first = {"add": torch.add, "mul": mul, "max": torch.maximum}[self.how](first, other)
        return first


class Scale(nn.Module):
    """A raw parameter and a buffer, a number a channel each."""

    def __init__(self, width: int, *, last: bool) -> None:
        super().__init__()
        shape = (width,) if last else (width, 1, 1)
        self.scale = nn.Parameter(torch.rand(shape) + 0.5)
        self.register_buffer("shift", torch.randn(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


class Repeated(nn.Module):
    """One module, applied several times."""

    def __init__(self, module: nn.Module, times: int) -> None:
        super().__init__()
        self.module, self.times = module, times

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = self.module(x).relu()
        return x


class Halves(nn.Module):
    """One half of the channels gates, or is processed beside, the other half."""

    def __init__(self, how: str, dim: int, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.how, self.dim, self.inner = how, dim, inner

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "glu":
            return F.glu(x, self.dim)
        if self.how == "slice":
            half = x.shape[self.dim] // 2
            a, b = x.narrow(self.dim, 0, half), x.narrow(self.dim, half, half)
        else:
            a, b = x.chunk(2, self.dim)
        return a * b.sigmoid() if self.inner is None else torch.cat([self.inner(a), b], self.dim)


class Written(nn.Module):
    """Channels written in place into a copy."""

    def __init__(self, option: int) -> None:
        super().__init__()
        self.option = option

    def forward(self, x: Tensor) -> Tensor:
        out = x.clone()
        if self.option % 2:
            out[:, :2] = x[:, -2:]
        return out.add_(x).mul_(0.5)


def conv(width: int, step: Step) -> Built:
    """A convolution of some grouping, a norm, an activation."""
    out, groups = step.width, (1, 1, 2, width)[step.option % 4]
    groups = groups if out % groups == 0 else 1
    kernel = (1, 3)[step.option // 4 % 2]
    norms = (nn.Identity(), nn.BatchNorm2d(out), nn.GroupNorm(2, out), nn.InstanceNorm2d(out, affine=True))
    layer = nn.Conv2d(width, out, kernel, padding=kernel // 2, groups=groups, bias=step.option % 3 > 0)
    if step.option % 11 == 7:
        layer = parametrizations.weight_norm(layer)
    return nn.Sequential(layer, norms[step.option % 5 % 4], ACTS[step.option % 6]()), out


def separable(width: int, step: Step) -> Built:
    depth = nn.Conv2d(width, width, 3, padding=1, groups=width)
    return nn.Sequential(depth, nn.BatchNorm2d(width), nn.ReLU6(), nn.Conv2d(width, step.width, 1)), step.width


def shuffle(width: int, step: Step) -> Built:
    if step.option % 2:
        return nn.ChannelShuffle(2), width
    return Apply(lambda x: x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)), width


def half_image(width: int, step: Step) -> Built:
    inner = nn.Conv2d(width // 2, width // 2, 3, padding=1)
    how = ("chunk", "slice", "glu")[step.option % 3]
    if step.option % 4 == 3 and how != "glu":
        return Halves(how, 1, inner), width
    return nn.Sequential(nn.Conv2d(width, 2 * step.width, 1), Halves(how, 1)), step.width


def excite(width: int, step: Step) -> Built:
    gate = [nn.Conv2d(width, step.width, 1), nn.ReLU(), nn.Conv2d(step.width, width, 1), nn.Sigmoid()]
    return Join("mul", 1, nn.Identity(), nn.Sequential(nn.AdaptiveAvgPool2d(1), *gate)), width


def moved(width: int, step: Step) -> Built:
    order = torch.randperm(width).tolist()
    moves: list[Callable[[Tensor], Tensor]] = [
        lambda x: x.flip(1),
        lambda x: x.roll(1, 1),
        lambda x: x[:, order],
        lambda x: x.transpose(2, 3).contiguous(),
        lambda x: x.permute(0, 2, 3, 1).relu().permute(0, 3, 1, 2),
        lambda x: x.roll((1, 2), (2, 3)),
        lambda x: x.flatten(2).transpose(1, 2).reshape(x.shape[0], 8, 8, -1).movedim(-1, 1),
    ]
    return Apply(moves[step.option % len(moves)]), width


def spread(width: int, step: Step) -> Built:
    moves: list[Callable[[Tensor], Tensor]] = [
        lambda x: x.repeat(1, 2, 1, 1),
        lambda x: x.repeat_interleave(2, 1),
        lambda x: torch.cat([x, x.neg()], 1),
        lambda x: torch.stack([x, x.relu()], 2).flatten(1, 2),
    ]
    shrink = nn.Conv2d(2 * width, step.width, 1)
    return nn.Sequential(Apply(moves[step.option % len(moves)]), shrink), step.width


def hourglass(width: int, step: Step) -> Built:
    inner = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(width, step.width, 3, padding=1), nn.ReLU())
    up = nn.ConvTranspose2d(step.width, step.width, 2, 2) if step.option % 2 else nn.Upsample(scale_factor=2)
    joined = Join("cat", 1, nn.Identity(), nn.Sequential(inner, up))
    return nn.Sequential(joined, nn.Conv2d(width + step.width, step.width, 1)), step.width


def pixels(width: int, step: Step) -> Built:
    """Space to depth and back, with a layer between."""
    inner = nn.Conv2d(4 * width, 4 * step.width, 1, groups=2 if step.option % 2 else 1)
    return nn.Sequential(nn.PixelUnshuffle(2), inner, nn.PixelShuffle(2)), step.width


def mask(width: int, step: Step) -> Built:
    return Join("mul", 1, nn.Identity(), nn.Sequential(nn.Conv2d(width, 1, 1), nn.Sigmoid())), width


IMAGE: dict[str, Callable[[int, Step], Built]] = {
    "conv": conv,
    "separable": separable,
    "shuffle": shuffle,
    "halves": half_image,
    "excite": excite,
    "moved": moved,
    "spread": spread,
    "hourglass": hourglass,
    "pixels": pixels,
    "mask": mask,
    "scale": lambda width, step: (Scale(width, last=False), width),
    "written": lambda width, step: (Written(step.option), width),
    "reused": lambda width, step: (Repeated(nn.Conv2d(width, width, 3, padding=1), 1 + step.option % 3), width),
    "norm": lambda width, step: ((nn.GroupNorm(1, width), nn.BatchNorm2d(width, affine=False))[step.option % 2], width),
}


def joined(width: int, step: Step, kinds: dict[str, Callable[..., Any]], fit: Callable[[int, int], nn.Module]) -> Built:
    """Build a join of random branches; element-wise joins fit every branch to the first one's width."""
    dim, how = (1 if fit is nn_conv else -1), ("add", "cat", "mul", "max", "stack")[step.option % 5]
    built = [sequence(width, branch, kinds, fit) for branch in step.branches]
    if how == "cat":
        total = sum(out for _, out in built)
        return nn.Sequential(Join(how, dim, *(module for module, _ in built)), fit(total, step.width)), step.width
    first = built[0][1]
    fitted = [module if out == first else nn.Sequential(module, fit(out, first)) for module, out in built]
    return Join(how, dim, *fitted), first


def nn_conv(inputs: int, out: int) -> nn.Module:
    """Fit channels of an image."""
    return nn.Conv2d(inputs, out, 1)


def nn_linear(inputs: int, out: int) -> nn.Module:
    """Fit features of tokens."""
    return nn.Linear(inputs, out)


def sequence(
    width: int, steps: tuple[Step, ...], kinds: dict[str, Callable[..., Any]], fit: Callable[[int, int], nn.Module]
) -> Built:
    """Build a sequence of steps."""
    modules: list[nn.Module] = []
    for step in steps:
        module, width = joined(width, step, kinds, fit) if step.kind == "join" else kinds[step.kind](width, step)
        modules.append(module)
    return nn.Sequential(*modules), width
