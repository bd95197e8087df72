"""Weights that are not a standard layer's own: raw, tied, reused, reparametrised, computed."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from .base import Pattern, image, tokens


class Raw(nn.Module):
    """Matrix products with bare parameters, bias included."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.bias = nn.Parameter(torch.randn(4, 8)), nn.Parameter(torch.zeros(8))
        self.b, self.c = nn.Parameter(torch.randn(8, 6)), nn.Parameter(torch.randn(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul((x @ self.a + self.bias).relu() @ self.b, self.c)


class Einsum(nn.Module):
    """Contractions by einsum, among them one over two axes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(4, 2, 6)), nn.Parameter(torch.randn(2, 6, 8))
        self.c = nn.Parameter(torch.randn(4, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.einsum("bnc,chd->bnhd", x, self.a)
        return torch.einsum("bne,oe->bno", torch.einsum("bnhd,hde->bne", x, self.b), self.c)


class FunctionalConv(nn.Module):
    """F.conv2d and F.linear with bare parameters, from a list and a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = nn.ParameterList([torch.randn(8, 3, 3, 3), torch.randn(6, 8, 1, 1)])
        self.heads = nn.ParameterDict({"out": torch.randn(4, 6)})

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(F.conv2d(x, self.kernels[0], padding=1).relu(), self.kernels[1])
        return F.linear(x.mean((2, 3)), self.heads["out"])


class Product(nn.Module):
    """A weight that is the product of two parameters (low rank)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Linear(4, 8), nn.Parameter(torch.randn(6, 3)), nn.Parameter(torch.randn(3, 8))
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.linear(self.stem(x).relu(), self.a @ self.b).relu())


class Adapter(nn.Module):
    """LoRA: a frozen layer plus a scaled low-rank path."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.base, self.head = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 4)
        self.a, self.b, self.scale = nn.Linear(8, 2, bias=False), nn.Linear(2, 6, bias=False), 2.0
        self.base.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.head(self.base(x) + self.scale * self.b(self.a(x)))


class Buffers(nn.Module):
    """Scales and shifts in buffers, one of them not saved, and a plain tensor attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 4, 1)
        self.register_buffer("scale", torch.rand(8, 1, 1) + 0.5)
        self.register_buffer("shift", torch.linspace(-1, 1, 8).reshape(1, 8, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two((self.one(x) * self.scale + self.shift).relu()))


class PlainTensor(nn.Module):
    """A tensor that is a plain attribute, neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 4, 1)
        self.offset = torch.arange(8.0).view(1, 8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.one(x) + self.offset.to(x.dtype)).relu())


class TiedLayers(nn.Module):
    """Two linear layers share one matrix; an autoencoder reads its weight transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.b.weight = self.a.weight
        self.code, self.head = nn.Linear(8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(self.stem(x)).relu()).relu()
        return self.head(F.linear(self.code(x).relu(), self.code.weight.t()))


class Reused(nn.Module):
    """One block, run three times; its channels are its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.norm = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = self.norm(self.block(x)).relu()
        return self.head(x)


class SharedTrunk(nn.Module):
    """One head reads two branches of different origin."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 3, padding=1)
        self.shared, self.head = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(self.shared(self.a(x)).relu()), self.head(self.shared(self.b(x)).relu())


class Standardised(nn.Conv2d):
    """Weight standardisation, computed in the forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class StandardisedByNorm(nn.Conv2d):
    """Weight standardisation by F.batch_norm on the weight, as in timm, with a gain."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(rows, None, None, weight=self.gain.view(-1), training=True, momentum=0.0)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias)


class Scaled(nn.Module):
    """A parametrization of one's own: the weight times a scale a row."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(8, 1) + 0.5)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.scale


class Dynamic(nn.Module):
    """Kernels are a softmax mixture of a bank, chosen by the input (batch in the groups of one convolution)."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.route = nn.Conv2d(3, 8, 1), nn.Linear(8, 2)
        self.bank, self.head = nn.Parameter(torch.randn(2, 6, 8, 1, 1)), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x).relu()
        batch, channels, height, width = x.shape
        weight = torch.einsum("bk,koihw->boihw", self.route(x.mean((2, 3))).softmax(-1), self.bank)
        y = F.conv2d(x.reshape(1, -1, height, width), weight.flatten(0, 1), groups=batch)
        return self.head(y.view(batch, -1, height, width))


class Bilinear(nn.Module):
    """nn.Bilinear over two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.join = nn.Linear(4, 8), nn.Linear(4, 6), nn.Bilinear(8, 6, 5)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.join(self.a(x).relu(), self.b(x).relu()))


class Bank(nn.Module):
    """An outer product and a pairwise interaction, both flattened and read."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 3), nn.Linear(4, 5), nn.Linear(15, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.a(x)[..., :, None] * self.b(x)[..., None, :]).flatten(-2))


def between(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), layer, nn.ReLU(), nn.Conv2d(6, 4, 1))


def old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it is deprecated, and still common
        return between(torch.nn.utils.weight_norm(nn.Conv2d(8, 6, 1)))


def scaled() -> nn.Module:
    middle = nn.Linear(4, 8)
    parametrize.register_parametrization(middle, "weight", Scaled())
    return nn.Sequential(middle, nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))


PATTERNS = [
    Pattern(name="raw_parameters", make=Raw, example=tokens(4, 4), expect=2),
    Pattern(name="einsum", make=Einsum, example=tokens(4, 4), expect=3),
    Pattern(name="functional_conv", make=FunctionalConv, example=image(), expect=2),
    Pattern(name="weight_is_product", make=Product, example=tokens(4, 4), expect=3),
    Pattern(name="low_rank_adapter", make=Adapter, example=tokens(4, 4), expect=3),
    Pattern(name="buffers", make=Buffers, example=image(), expect=2),
    Pattern(name="plain_tensor", make=PlainTensor, example=image(), expect=1),
    Pattern(name="tied_layers", make=TiedLayers, example=tokens(4, 4), expect=2),
    Pattern(name="reused_block", make=Reused, example=image(), expect=1),
    Pattern(name="shared_trunk", make=SharedTrunk, example=image(), expect=2),
    Pattern(name="weight_norm_old", make=old_weight_norm, example=image(), expect=2),
    Pattern(
        name="weight_norm",
        make=lambda: between(parametrizations.weight_norm(nn.Conv2d(8, 6, 1))),
        example=image(),
        expect=2,
    ),
    Pattern(
        name="spectral_norm",
        make=lambda: between(parametrizations.spectral_norm(nn.Conv2d(8, 6, 1))),
        example=image(),
        expect=1,
    ),
    Pattern(name="own_parametrization", make=scaled, example=tokens(4, 4), expect=2),
    Pattern(
        name="weight_standardised",
        make=lambda: between(Standardised(8, 6, 3)),
        example=image(),
        expect=1,
        zero_ok=False,
    ),
    Pattern(
        name="weight_standardised_by_norm",
        make=lambda: between(StandardisedByNorm(8, 6, 1)),
        example=image(),
        expect=1,
        zero_ok=False,
    ),
    Pattern(name="dynamic_kernel", make=Dynamic, example=image(), expect=2, zero_ok=False),
    Pattern(name="bilinear", make=Bilinear, example=tokens(4, 4), expect=3),
    Pattern(name="outer_product", make=Bank, example=tokens(4, 4), expect=2),
]
