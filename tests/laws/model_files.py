"""A small network with everything that a file can get wrong, its cut, and what a hostile author does to its file."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from espalier.core import SetAttribute, Slice, Surgery
from espalier.graph import header


class Config:
    """A plain configuration object shared by two modules."""

    def __init__(self) -> None:
        self.width = 8
        self.split = (4, (8, 2))


class Tied(nn.Module):
    """Tied weights, an LSTM, every kind of buffer, a plain tensor and a config, in one small network."""

    def __init__(self) -> None:
        super().__init__()
        self.config = Config()
        self.encode = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.cell = nn.LSTM(8, 4, batch_first=True)
        self.head = nn.Linear(8, 6, bias=False)
        self.same = nn.Linear(8, 6)
        self.same.weight = self.head.weight
        self.register_buffer("scale", torch.rand(8))
        self.register_buffer("hidden", torch.arange(8.0), persistent=False)
        self.plain = torch.arange(8.0)
        self.encode.bias.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.encode(x)) * self.scale + self.hidden * self.plain
        z, _ = self.cell(y.reshape(-1, 1, self.config.width))
        return self.head(y) + self.same(y) + z.sum()


def surgery(keep: tuple[int, ...], size: int = 8) -> Surgery:
    """Return the cut of the width of ``Tied`` to ``keep``."""
    places = [
        "encode.weight:0",
        "encode.bias:0",
        "cell.weight_ih_l0:1",
        "head.weight:1",
        "scale:0",
        "hidden:0",
        "plain:0",
    ]
    places += [f"norm.{name}:0" for name in ("weight", "bias", "running_mean", "running_var")]
    slices = {}
    for place in places:
        tensor, dim = place.split(":")
        slices[tensor, int(dim)] = Slice(tensor, int(dim), keep, size)
    width = len(keep)
    attributes = [
        SetAttribute("encode", ("out_features",), width),
        SetAttribute("norm", ("num_features",), width),
        SetAttribute("cell", ("input_size",), width),
        SetAttribute("head", ("in_features",), width),
        SetAttribute("same", ("in_features",), width),
        SetAttribute("", ("config", "width"), width),
        SetAttribute("", ("config", "split", 1, 0), width),
    ]
    return Surgery(slices, {(a.module, a.path): a for a in attributes})


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def rewrite(path: Path, **changes: str) -> None:
    """Change metadata entries and put their hashes right: what a hostile author does."""
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
    save_file(tensors, path, metadata=hashed(metadata | changes))


def hashed(metadata: dict[str, str]) -> dict[str, str]:
    hashes = {name: header.sha256(text.encode()) for name, text in metadata.items() if name != "sha256"}
    return metadata | {"sha256": json.dumps(hashes)}


def state_on_disk(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def read(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())
