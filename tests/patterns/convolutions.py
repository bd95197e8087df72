"""Convolutions of every dimension and grouping, and what follows them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, cat, nn

from .base import Pattern, image

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
BACK = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class Chain(nn.Module):
    """conv, norm, relu, conv, mean over space, linear."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.one, self.norm = CONV[dims](3, 8, 3, padding=1), NORM[dims](8)
        self.two, self.head = CONV[dims](8, 6, 3, padding=1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.two(F.relu(self.norm(self.one(x)))))
        return self.head(x.flatten(2).mean(2))


class Grouped(nn.Module):
    """A pointwise convolution, a grouped one, a pointwise one."""

    def __init__(self, width: int, out: int, groups: int, dims: int = 2, *, back: bool = False) -> None:
        super().__init__()
        self.one = CONV[dims](3, width, 1)
        self.mid = (BACK if back else CONV)[dims](width, out, 3, padding=1, groups=groups)
        self.norm, self.two = NORM[dims](out), CONV[dims](out, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(F.relu(self.norm(self.mid(F.relu(self.one(x))))))
        return self.head(x.flatten(2).mean(2))


def backward_chain(dims: int) -> nn.Module:
    return nn.Sequential(BACK[dims](3, 8, 2, 2), nn.ReLU(), BACK[dims](8, 6, 3, padding=1), CONV[dims](6, 2, 1))


class OneChannelMask(nn.Module):
    """A convolution with one output channel gates many."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.gate, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 1, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        return self.two(x * self.gate(x).sigmoid())


class SqueezedChannel(nn.Module):
    """A single channel is squeezed away and its columns become features."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.gate, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 1, 1), nn.Linear(8, 8)
        self.last = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.head(self.gate(self.one(x)).squeeze(1)).relu())


class FlattenAfter(nn.Module):
    """Channels and space become one long dimension before a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.Linear(32, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.two(self.one(x).flatten(1))))


class Unfold(nn.Module):
    """Patches by F.unfold, read by a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.read, self.head = nn.Conv2d(3, 4, 1), nn.Linear(36, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(self.one(x), 3, padding=1)
        return self.head(self.read(patches.transpose(1, 2)).relu())


class Fold(nn.Module):
    """Columns written by a linear layer, laid out by F.fold."""

    def __init__(self) -> None:
        super().__init__()
        self.write, self.read = nn.Linear(8, 16), nn.Conv2d(4, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        columns = self.write(x).transpose(1, 2)
        return self.read(F.fold(columns, (4, 4), 2, stride=2))


class Pyramid(nn.Module):
    """Pools at three scales, flattened and concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8 * 21, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.one(x))
        return self.head(cat([F.adaptive_avg_pool2d(x, n).flatten(1) for n in (1, 2, 4)], 1))


class Coordinates(nn.Module):
    """Constant channels are concatenated to learned ones."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(10, 6, 1), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        ramp = x.new_ones(x.shape[0], 2, *x.shape[2:]).cumsum(-1)
        return self.head(F.relu(self.two(cat([self.one(x), ramp], 1))))


class Poolings(nn.Module):
    """Average, maximum and adaptive pools, added."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        x = F.avg_pool2d(x, 2) + F.max_pool2d(x, 2) + F.adaptive_max_pool2d(x, 4)
        return self.head(F.adaptive_avg_pool2d(x, 2).flatten(1))


def upsampled() -> nn.Module:
    up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    near = nn.Upsample(scale_factor=2, mode="nearest")
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), up, nn.ReflectionPad2d(1), nn.Conv2d(8, 6, 3), near, nn.Conv2d(6, 2, 1)
    )


def pixel_shuffled() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 1), nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 2, 1))


def pixel_unshuffled() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.PixelUnshuffle(2), nn.ReLU(), nn.Conv2d(16, 6, 1), nn.Conv2d(6, 2, 1))


class SpaceToDepth(nn.Module):
    """Four strided slices, concatenated (the YOLO focus layer)."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(16, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        parts = [x[..., a::2, b::2] for a in (0, 1) for b in (0, 1)]
        return self.head(F.relu(self.two(cat(parts, 1))))


class Shuffle(nn.Module):
    """ShuffleNet: grouped, shuffled, grouped again."""

    def __init__(self, groups: int = 2, *, builtin: bool = False) -> None:
        super().__init__()
        self.groups, self.builtin = groups, builtin
        self.one, self.two = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=groups)
        self.three, self.head = nn.Conv2d(8, 8, 1, groups=groups), nn.Conv2d(8, 4, 1)

    def shuffle(self, x: Tensor) -> Tensor:
        if self.builtin:
            return F.channel_shuffle(x, self.groups)
        batch, channels, height, width = x.shape
        x = x.view(batch, self.groups, channels // self.groups, height, width)
        return x.transpose(1, 2).contiguous().view(batch, -1, height, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.three(self.shuffle(F.relu(self.two(self.one(x))))))


def mobile() -> nn.Module:
    inverted = [nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16), nn.ReLU6(), nn.Conv2d(16, 16, 3, 2, 1, groups=16)]
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        *inverted,
        nn.Hardswish(),
        nn.Conv2d(16, 8, 1),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def dropped(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 1), *layers, nn.Conv2d(8, 4, 1))


PATTERNS = [
    Pattern(
        name="dropout_of_channels",
        make=lambda: dropped(nn.Dropout2d(0.5), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5)),
        example=image(),
        expect=1,
    ),
    Pattern(name="alpha_dropout", make=lambda: dropped(nn.SELU(), nn.FeatureAlphaDropout()), example=image(), expect=1),
    Pattern(name="fractional_pool", make=lambda: dropped(nn.FractionalMaxPool2d(2, (3, 3))), example=image(), expect=0),
    *(Pattern(name=f"conv{d}d", make=lambda d=d: Chain(d), example=image(3, *[4] * d), expect=2) for d in (1, 2, 3)),
    *(
        Pattern(name=f"conv_transpose{d}d", make=lambda d=d: backward_chain(d), example=image(3, *[4] * d), expect=2)
        for d in (1, 2, 3)
    ),
    Pattern(name="depthwise", make=lambda: Grouped(8, 8, 8), example=image(), expect=2),
    Pattern(name="depthwise_1d", make=lambda: Grouped(8, 8, 8, 1), example=image(3, 8), expect=2),
    Pattern(name="depthwise_multiplier", make=lambda: Grouped(8, 16, 8), example=image(), expect=2),
    Pattern(name="grouped", make=lambda: Grouped(12, 12, 3), example=image(), expect=4),
    Pattern(name="grouped_3d", make=lambda: Grouped(8, 8, 2, 3), example=image(3, 4, 4, 4), expect=4),
    Pattern(name="grouped_narrowing", make=lambda: Grouped(12, 6, 3), example=image(), expect=4),
    Pattern(name="depthwise_transposed", make=lambda: Grouped(8, 8, 8, back=True), example=image(), expect=2),
    Pattern(name="grouped_transposed", make=lambda: Grouped(8, 16, 2, back=True), example=image(), expect=4),
    Pattern(name="mobile", make=mobile, example=image(), expect=3),
    Pattern(name="one_channel_mask", make=OneChannelMask, example=image(), expect=1),
    Pattern(name="squeezed_channel", make=SqueezedChannel, example=image(), expect=2),
    Pattern(name="flatten_after_conv", make=FlattenAfter, example=image(), expect=2),
    Pattern(name="unfold", make=Unfold, example=image(), expect=2),
    Pattern(name="fold", make=Fold, example=image(4, 8), expect=1),
    Pattern(name="pool_pyramid", make=Pyramid, example=image(), expect=1),
    Pattern(name="coordinate_channels", make=Coordinates, example=image(), expect=2),
    Pattern(name="poolings", make=Poolings, example=image(), expect=1),
    Pattern(name="upsample_and_pad", make=upsampled, example=image(), expect=2),
    Pattern(name="pixel_shuffle", make=pixel_shuffled, example=image(), expect=2),
    Pattern(name="pixel_unshuffle", make=pixel_unshuffled, example=image(), expect=2),
    Pattern(name="space_to_depth", make=SpaceToDepth, example=image(), expect=2),
    Pattern(name="channel_shuffle_view", make=Shuffle, example=image(), expect=2),
    Pattern(name="channel_shuffle_builtin", make=lambda: Shuffle(builtin=True), example=image(), expect=2),
]
