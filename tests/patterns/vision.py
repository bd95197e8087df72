"""Detection: deformable convolution, pooling over regions, positions joined with content.

torchvision's extension is used where it loads; beside a PyTorch that it was not compiled for, the same operators are
declared here, in plain PyTorch.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espalier.zoo.sources import torchvision_operators

from .base import Pattern, image

_DEFORM = (
    "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, "
    "SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, "
    "SymInt offset_groups, bool use_mask) -> Tensor"
)
_REGIONS = (
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor"
)


@cache
def operators() -> Any:
    """Return torchvision's operators."""
    torchvision_operators.declare()
    for schema, run, make in ((_DEFORM, _deform, _deform_shape), (_REGIONS, _regions, _regions_shape)):
        name = schema.partition("(")[0]
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", schema.removeprefix(name))
            torch.library.impl(f"torchvision::{name}", "CPU", run)
            torch.library.register_fake(f"torchvision::{name}", make)
            backward, setup = _differentiable(run)
            torch.library.register_autograd(f"torchvision::{name}", backward, setup_context=setup)
    return torch.ops.torchvision


def _differentiable(run: Any) -> tuple[Any, Any]:
    """Return a backward pass that runs the forward again, and what it needs to be set up."""

    def setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.inputs = inputs

    def backward(ctx: Any, gradient: Tensor) -> tuple:
        with torch.enable_grad():
            own = [x.detach().requires_grad_() if isinstance(x, Tensor) else x for x in ctx.inputs]
            leaves = [x for x in own if isinstance(x, Tensor)]
            found = iter(torch.autograd.grad(run(*own), leaves, gradient, allow_unused=True))
        return tuple(next(found) if isinstance(x, Tensor) else None for x in own)

    return backward, setup


def _sampled(x: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
    """Sample images (n, c, h, w) at pixels (n, a, b)."""
    height, width = x.shape[2:]
    grid = torch.stack([(2 * xs + 1) / width - 1, (2 * ys + 1) / height - 1], -1)
    return F.grid_sample(x, grid, align_corners=False)


def _deform(x, weight, offset, mask, bias, sh, sw, ph, pw, dh, dw, groups, offset_groups, use_mask):  # noqa: PLR0913 - as torchvision has it
    count, _, kh, kw = weight.shape
    batch, _, rows, columns = offset.shape
    offset = offset.view(batch, offset_groups, kh, kw, 2, rows, columns)
    mask = mask.view(batch, offset_groups, kh, kw, rows, columns) if use_mask else None
    ys, xs = torch.arange(rows) * sh - ph, torch.arange(columns) * sw - pw
    parts = []
    for i in range(kh):
        for j in range(kw):
            pieces = []
            for g, piece in enumerate(x.chunk(offset_groups, 1)):
                dy, dx = offset[:, g, i, j].unbind(1)
                one = _sampled(piece, ys[:, None] + i * dh + dy, xs[None] + j * dw + dx)
                pieces.append(one if mask is None else one * mask[:, g, i, j, None])
            parts.append(torch.cat(pieces, 1))
    columns_of = torch.stack(parts, 2).flatten(3)  # (n, c, kernel, places)
    kernels = weight.view(groups, count // groups, weight.shape[1], kh * kw)
    found = torch.einsum("ngckp,gock->ngop", columns_of.unflatten(1, (groups, -1)), kernels)
    return found.reshape(batch, count, rows, columns) + bias.view(-1, 1, 1)


def _deform_shape(x, weight, offset, *_):
    return x.new_empty(x.shape[0], weight.shape[0], *offset.shape[2:])


def _regions(x, rois, scale, height, width, sampling, aligned):
    left, top, right, bottom = (rois[:, 1:] * scale - 0.5 * aligned).unbind(1)
    ys = top[:, None] + (torch.arange(height) + 0.5) / height * (bottom - top)[:, None]
    xs = left[:, None] + (torch.arange(width) + 0.5) / width * (right - left)[:, None]
    shape = (len(rois), height, width)
    return _sampled(x[rois[:, 0].long()], ys[:, :, None].expand(shape), xs[:, None].expand(shape))


def _regions_shape(x, rois, scale, height, width, sampling, aligned):
    return x.new_empty(len(rois), x.shape[1], height, width)


class Deformable(nn.Module):
    """A deformable convolution between two plain ones; its call is torchvision's."""

    def __init__(self, groups: int = 1, offset_groups: int = 1, masked: bool = True, bias: bool = True) -> None:
        super().__init__()
        self.ops, self.groups, self.masked = operators, groups, masked
        self.one, self.after = nn.Conv2d(3, 8, 1), nn.Conv2d(6, 4, 1)
        self.offsets = nn.Conv2d(8, 18 * offset_groups, 3, padding=1)
        self.modulator = nn.Conv2d(8, 9 * offset_groups, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(6, 8 // groups, 3, 3))
        self.bias = nn.Parameter(torch.randn(6)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        offset, mask = self.offsets(x), self.modulator(x).sigmoid()
        mask = mask if self.masked else torch.zeros((x.shape[0], 1), device=x.device, dtype=x.dtype)
        bias = self.bias if self.bias is not None else torch.zeros(self.weight.shape[0], dtype=x.dtype)
        _, channels, _, _ = x.shape
        height, width = self.weight.shape[-2:]
        offset_groups, groups = offset.shape[1] // (2 * height * width), channels // self.weight.shape[1]
        given = (1, 1, 1, 1, 1, 1, groups, offset_groups, self.masked)
        return self.after(self.ops().deform_conv2d(x, self.weight, offset, mask, bias, *given).relu())


class Regions(nn.Module):
    """Features pooled over boxes, then a head over flat channels x places (Faster R-CNN)."""

    def __init__(self) -> None:
        super().__init__()
        self.ops = operators
        self.one, self.two, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8 * 2 * 2, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        boxes = torch.tensor([[0, 0, 0, 4, 4], [1, 1, 2, 6, 7], [1, 0, 3, 7, 5]], dtype=x.dtype)
        pooled = self.ops().roi_align(self.one(x).relu(), boxes, 1.0, 2, 2, 1, True)
        return self.head(self.two(pooled.flatten(1)).relu())


class TablesOfPlaces(nn.Module):
    """DETR: half of a position's channels come from its row, half from its column; what asks for objects is a table."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem, self.narrow = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, width, 1)
        self.rows, self.columns = nn.Parameter(torch.rand(10, width // 2)), nn.Parameter(torch.rand(10, width // 2))
        self.objects = nn.Parameter(torch.rand(3, width))
        self.transformer = nn.Transformer(width, 2, 1, 1, 12, dropout=0.0, batch_first=True)
        self.classes, self.boxes = nn.Linear(width, 4), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.narrow(self.stem(x).relu())
        height, width = h.shape[-2:]
        columns = self.columns[:width].unsqueeze(0).repeat(height, 1, 1)
        rows = self.rows[:height].unsqueeze(1).repeat(1, width, 1)
        places = torch.cat([columns, rows], dim=-1).flatten(0, 1).unsqueeze(0)
        objects = self.objects.unsqueeze(0).repeat(len(x), 1, 1)
        h = self.transformer(places + 0.1 * h.flatten(2).permute(0, 2, 1), objects)
        return {"logits": self.classes(h), "boxes": self.boxes(h).sigmoid()}


class TablesAhead(nn.Module):
    """The same, as a module: embeddings by number, channels first, for each image; attention keeps places apart."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem, self.rows, self.columns = nn.Conv2d(3, width, 1), nn.Embedding(10, 4), nn.Embedding(10, 4)
        self.attention, self.head = nn.MultiheadAttention(width, 2, batch_first=True), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        height, width = x.shape[-2:]
        columns, rows = self.columns(torch.arange(width)), self.rows(torch.arange(height))
        places = torch.cat([columns.unsqueeze(0).repeat(height, 1, 1), rows.unsqueeze(1).repeat(1, width, 1)], dim=-1)
        places = places.permute(2, 0, 1).unsqueeze(0).repeat(x.shape[0], 1, 1, 1)
        x, places = x.flatten(2).transpose(1, 2), places.flatten(2).transpose(1, 2)
        return self.head(x + self.attention(x + places, x + places, x, need_weights=False)[0])


PATTERNS = [
    Pattern(name="places_of_rows_and_columns", make=TablesOfPlaces, example=image(3, 4, 5), expect=4, zero_ok=False),
    Pattern(name="places_ahead", make=TablesAhead, example=image(3, 4, 5), expect=2),
    Pattern(name="deformable", make=Deformable, example=image(), expect=2),
    Pattern(name="deformable_plain", make=lambda: Deformable(masked=False, bias=False), example=image(), expect=2),
    Pattern(name="deformable_groups", make=lambda: Deformable(groups=2), example=image(), expect=0),
    Pattern(name="deformable_offset_groups", make=lambda: Deformable(offset_groups=2), example=image(), expect=1),
    Pattern(name="regions", make=Regions, example=image(), expect=2),
]
