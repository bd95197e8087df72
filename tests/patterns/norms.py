"""Every normalisation, and the places where it can stand."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, cat, nn

from .base import Pattern, image, tokens


class ConvNorm(nn.Module):
    """conv, norm, relu, conv."""

    def __init__(self, norm: nn.Module, width: int = 8) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Conv2d(3, width, 1), norm, nn.Conv2d(width, 6, 1)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.norm(self.one(x)).relu()))


class TokenNorm(nn.Module):
    """linear, norm, residual MLP, linear."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.stem, self.norm = nn.Linear(4, 8), norm
        self.up, self.down, self.head = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.down(F.gelu(self.up(self.norm(x)))))


class ChannelsFirst(nn.Module):
    """ConvNeXt: layer norm over channels through permutations, a layer scale, a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.spread = nn.Conv2d(3, 8, 2, 2), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.scale, self.head = nn.Parameter(torch.full((8, 1, 1), 1e-6)), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.down(F.gelu(self.up(self.norm(self.spread(x).permute(0, 2, 3, 1))))).permute(0, 3, 1, 2)
        return self.head((x + self.scale * y).mean((2, 3)))


class HandRMS(nn.Module):
    """RMS norm written out, as in most language models."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), 1e-6

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


class HandLayer(nn.Module):
    """Channels-first layer norm written out."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt((x - mean).pow(2).mean(1, keepdim=True) + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class ResponseNorm(nn.Module):
    """ConvNeXt V2's global response norm."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.zeros(1, 8, 1, 1)), nn.Parameter(torch.zeros(1, 8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        size = x.norm(p=2, dim=(2, 3), keepdim=True)
        return self.gamma * (x * (size / (size.mean(1, keepdim=True) + 1e-6))) + self.beta + x


class GroupNormOverCat(nn.Module):
    """Group norm whose groups straddle a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 12, 1), nn.Conv2d(3, 20, 1)
        self.norm, self.head = nn.GroupNorm(8, 32), nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(cat([self.a(x), self.b(x)], 1)).relu())


class Functional(nn.Module):
    """A function in a module's place."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class BatchNormFunction(nn.Module):
    """F.batch_norm with buffers of the module's own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("var", torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.mean, self.var, self.scale, None, False, 0.1, 1e-5)


class FrozenBatchNorm(nn.Module):
    """Detection models' batch norm: four buffers, reshaped in the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        for name, value in {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}.items():
            self.register_buffer(name, value + torch.linspace(-0.3, 0.4, 8))  # no two alike: one can see which stay

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.reshape(1, -1, 1, 1) * (self.running_var.reshape(1, -1, 1, 1) + 1e-5).rsqrt()
        return x * scale + (self.bias.reshape(1, -1, 1, 1) - self.running_mean.reshape(1, -1, 1, 1) * scale)


class FlatBatchNorm(nn.Module):
    """Batch norm over features of a flat batch and over tokens' channels."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.n1, self.n2 = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.BatchNorm1d(6)
        self.two, self.head = nn.Linear(8, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.n1(self.one(x).transpose(1, 2)).transpose(1, 2).relu()
        return self.head(self.n2(self.two(x.mean(1))).relu())


CONV: dict[str, tuple[Callable[[], nn.Module], int]] = {
    # name: (norm over 8 channels, groups that a good engine finds)
    "batch_norm": (lambda: nn.BatchNorm2d(8), 2),
    "batch_norm_bare": (lambda: nn.BatchNorm2d(8, affine=False), 2),
    "batch_norm_no_running": (lambda: nn.BatchNorm2d(8, track_running_stats=False), 2),
    "batch_norm_function": (BatchNormFunction, 2),
    "batch_norm_frozen": (FrozenBatchNorm, 2),
    "group_norm": (lambda: nn.GroupNorm(4, 8), 3),
    "group_norm_one": (lambda: nn.GroupNorm(1, 8), 2),
    "group_norm_bare": (lambda: nn.GroupNorm(2, 8, affine=False), 2),
    "instance_norm": (lambda: nn.InstanceNorm2d(8, affine=True), 2),
    "instance_norm_bare": (lambda: nn.InstanceNorm2d(8), 2),
    "instance_norm_running": (lambda: nn.InstanceNorm2d(8, affine=True, track_running_stats=True), 2),
    "local_response_norm": (lambda: nn.LocalResponseNorm(3), 1),
    "layer_norm_2d_by_hand": (HandLayer, 2),
    "layer_norm_space": (lambda: nn.LayerNorm([8, 8]), 2),
    "response_norm": (ResponseNorm, 2),
    "normalize_channels": (lambda: Functional(lambda x: F.normalize(x, dim=1)), 2),
}

TOKEN: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "layer_norm": (lambda: nn.LayerNorm(8), 2),
    "layer_norm_bare": (lambda: nn.LayerNorm(8, elementwise_affine=False), 2),
    "layer_norm_no_bias": (lambda: nn.LayerNorm(8, bias=False), 2),
    "layer_norm_function": (lambda: Functional(lambda x: F.layer_norm(x, (x.shape[-1],))), 2),
    "layer_norm_over_all": (lambda: nn.LayerNorm([4, 8]), 1),
    "rms_norm": (lambda: nn.RMSNorm(8), 2),
    "rms_norm_by_hand": (HandRMS, 2),
}

STATISTICS = {"local_response_norm", "layer_norm_2d_by_hand", "rms_norm_by_hand", "response_norm", "layer_norm_bare"}
STATISTICS |= {"layer_norm_function", "layer_norm_over_all", "group_norm_bare"}

PATTERNS = [
    *(
        Pattern(
            name=name,
            make=lambda norm=norm: ConvNorm(norm()),
            example=image(),
            expect=expect,
            zero_ok=name not in STATISTICS,
        )
        for name, (norm, expect) in CONV.items()
    ),
    *(
        Pattern(
            name=name,
            make=lambda norm=norm: TokenNorm(norm()),
            example=tokens(4, 4),
            expect=expect,
            zero_ok=name not in STATISTICS,
        )
        for name, (norm, expect) in TOKEN.items()
    ),
    Pattern(name="convnext_block", make=ChannelsFirst, example=image(), expect=2),
    Pattern(name="group_norm_over_cat", make=GroupNormOverCat, example=image(), expect=3),
    Pattern(name="batch_norm_flat", make=FlatBatchNorm, example=tokens(8, 4), expect=2),
]
