"""Sizes that live in Python: attributes, configs, closures, shapes; and every kind of input and output."""

from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Pattern, ids, image, tokens


class HiddenAttribute(nn.Module):
    """A hidden size and a flat size in attributes, used in reshapes."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.flat = 8, 8 * 4 * 4
        self.one, self.two, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(128, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x).view(-1, self.channels, 4, 2, 4, 2).amax((3, 5))
        return self.head(self.two(x).relu().view(-1, self.flat))


class ConfigSizes(nn.Module):
    """Sizes come from a shared configuration object, not from module attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(hidden=8, heads=2, layers=2)
        c = self.config
        self.stem, self.head = nn.Linear(4, c.hidden), nn.Linear(c.hidden, 4)
        self.qkvs = nn.ModuleList(nn.Linear(c.hidden, 3 * c.hidden) for _ in range(c.layers))
        self.outs = nn.ModuleList(nn.Linear(c.hidden, c.hidden) for _ in range(c.layers))

    def forward(self, x: Tensor) -> Tensor:
        x, c = self.stem(x), self.config
        for qkv, out in zip(self.qkvs, self.outs, strict=True):
            q, k, v = (
                t.view(*x.shape[:2], c.heads, c.hidden // c.heads).transpose(1, 2) for t in qkv(x).split(c.hidden, -1)
            )
            y = F.scaled_dot_product_attention(q, k, v, scale=0.5)
            x = x + out(y.transpose(1, 2).reshape(*x.shape[:2], c.hidden))
        return self.head(x)


class HeadsFromWidth(nn.Module):
    """C // heads in the forward pass; the scale is C // heads to the power -1/2."""

    def __init__(self, heads: int = 2) -> None:
        super().__init__()
        self.stem, self.qkv, self.proj, self.head = nn.Linear(4, 8), nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 4)
        self.n_heads = heads

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        batch, count, width = x.shape
        q, k, v = self.qkv(x).split(width, dim=2)
        q, k, v = (t.view(batch, count, self.n_heads, width // self.n_heads).transpose(1, 2) for t in (q, k, v))
        y = (q @ k.transpose(-2, -1) * (1.0 / (width // self.n_heads) ** 0.5)).softmax(-1) @ v
        return self.head(x + self.proj(y.transpose(1, 2).contiguous().view(batch, count, width)))


class SplitSizes(nn.Module):
    """A list of sizes in an attribute (the forms of Res2Net, MixNet and YOLO)."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = [4, 2, 2]
        self.one, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        self.parts = nn.ModuleList(nn.Conv2d(n, n, 3, padding=1) for n in self.sizes)

    def forward(self, x: Tensor) -> Tensor:
        pieces = torch.split(self.one(x), self.sizes, dim=1)
        return self.head(torch.cat([part(piece) for part, piece in zip(self.parts, pieces, strict=True)], 1).relu())


class Res2(nn.Module):
    """Res2Net: hierarchical chunks by an attribute of width."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.scale = 4, 3
        self.one, self.head = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 4, 1)
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        pieces = torch.split(self.one(x), self.width, 1)
        out, last = [pieces[0]], pieces[0]
        for conv, piece in zip(self.convs, pieces[1:], strict=True):
            last = conv(piece + last).relu()
            out.append(last)
        return self.head(torch.cat(out, 1))


class ChannelLoop(nn.Module):
    """A Python loop over channels, one select a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        x = torch.stack([x[:, i] * (i + 1) for i in range(x.shape[1])], dim=1)
        return self.head(self.two(x).relu())


class Asserted(nn.Module):
    """Asserts about shapes, and a shape unpacked."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.one, self.head = 8, nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        assert x.shape[1] == self.channels, "wrong number of channels"
        _, channels, _, _ = x.size()
        return self.head(x + x.new_zeros(1, channels, 1, 1))


class MadeInForward(nn.Module):
    """A state of zeros, a mask of ones and a product with a size, all made in the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.inputs, self.state, self.head = 8, nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(x.shape[0], self.hidden, dtype=x.dtype)
        for step in range(x.shape[1]):
            state = torch.tanh(self.inputs(x[:, step]) + self.state(state))
        return self.head(state * torch.ones(self.hidden, dtype=x.dtype))


class ScaledByWidth(nn.Module):
    """Activations divided by the square root of their width (T5, Gemma)."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.table, self.body, self.head = 8, nn.Embedding(8, 8), nn.Linear(8, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.table(x) * self.width**0.5
        return self.head(self.body(x / x.shape[-1] ** 0.25).relu())


class Keywords(nn.Module):
    """Keyword inputs, a nested dict of outputs, an optional input left out."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.body, self.head, self.value = (
            nn.Embedding(8, 8),
            nn.Linear(8, 6),
            nn.Linear(6, 4),
            nn.Linear(6, 1),
        )

    def forward(self, *, tokens: Tensor, mask: Tensor | None = None, labels: Tensor | None = None) -> dict:
        x = self.body(self.table(tokens)).relu()
        x = x * mask[..., None] if mask is not None else x
        out = {"logits": self.head(x), "extra": {"value": self.value(x).squeeze(-1)}}
        return out if labels is None else {**out, "loss": out["logits"].mean()}


class DictInput(nn.Module):
    """One positional dict of tensors in, a list and a tuple out."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 8), nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        x = self.a(batch["a"]).relu() + self.b(batch["b"]).relu()
        return self.head(x), [x.sum(-1)]


class HiddenOut(nn.Module):
    """The network returns a hidden map as well as its head's result: that map's channels must stay."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.one(x)
        return self.head(self.two(x).relu()), x


class Containers(nn.Module):
    """Layers in nested containers, walked by name."""

    def __init__(self) -> None:
        super().__init__()
        stage = nn.ModuleDict(
            {"conv": nn.Conv2d(3, 8, 1), "post": nn.Sequential(nn.BatchNorm2d(8), nn.SiLU(inplace=True))}
        )
        self.stages = nn.ModuleList([stage, nn.ModuleDict({"conv": nn.Conv2d(8, 6, 1), "post": nn.Identity()})])
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            for layer in stage.values():
                x = layer(x)
        return self.head(x)


class NothingToPrune(nn.Module):
    """Its only channels are its input's and its output's."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.only(x)


class SortedChannels(nn.Module):
    """Values sorted along channels: a channel no longer means anything."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.one(x).sort(dim=1).values).relu())


PATTERNS = [
    Pattern(name="hidden_attribute", make=HiddenAttribute, example=image(), expect=2),
    Pattern(name="config_sizes", make=ConfigSizes, example=tokens(4, 4), expect=2),
    Pattern(name="heads_from_width", make=HeadsFromWidth, example=tokens(4, 4), expect=2),
    Pattern(name="split_sizes_attribute", make=SplitSizes, example=image(), expect=3),
    Pattern(name="res2_width_attribute", make=Res2, example=image(), expect=1),
    Pattern(name="channel_loop", make=ChannelLoop, example=image(), expect=1),
    Pattern(name="asserted_shape", make=Asserted, example=image(), expect=1),
    Pattern(name="made_in_forward", make=MadeInForward, example=tokens(4, 4), expect=1),
    Pattern(name="scaled_by_width", make=ScaledByWidth, example=ids(), expect=1, zero_ok=False),
    Pattern(
        name="keywords",
        make=Keywords,
        example=lambda: {"tokens": ids()(), "mask": torch.ones(2, 4)},
        expect=2,
    ),
    Pattern(
        name="dict_input",
        make=DictInput,
        example=lambda: ({"a": torch.randn(2, 4), "b": torch.randn(2, 6)},),
        expect=1,
        zero_ok=False,
    ),
    Pattern(name="hidden_map_out", make=HiddenOut, example=image(), expect=1),
    Pattern(name="containers", make=Containers, example=image(), expect=2),
    Pattern(name="nothing_to_prune", make=NothingToPrune, example=image(), expect=0),
    Pattern(name="sorted_channels", make=SortedChannels, example=image(), expect=1),
]
