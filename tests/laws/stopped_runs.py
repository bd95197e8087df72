"""Runs that are stopped at a write, and what two runs of the same must have in common."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from espalier.core import atomic


class Killed(BaseException):
    """Stands for a signal that nobody can catch."""


class Writes:
    """Counts the moments at which a file gets its name, and stops the process at one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException, *, after: bool = False) -> None:
        self.count, self.at = 0, at
        real = os.replace

        def replace(source, target) -> None:
            self.count += 1
            if self.count == self.at and not after:
                raise error
            real(source, target)
            if self.count == self.at:
                raise error

        monkeypatch.setattr(atomic.os, "replace", replace)


class Network(nn.Module):
    """Convolutions, batch norm and dropout: everything that keeps state or draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(1, 12, 3), nn.BatchNorm2d(12), nn.Conv2d(12, 16, 3, stride=2)
        self.drop, self.head = nn.Dropout(0.2), nn.Linear(16 * 4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.b(torch.relu(self.norm(self.a(x)))))
        return self.head(self.drop(x.flatten(1)))


def network() -> nn.Module:
    torch.manual_seed(0)
    return Network()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def record(folder: Path) -> dict:
    """Return what two runs of the same must have in common: everything but clocks and names."""
    run = json.loads((folder / "run.json").read_text())
    epochs = [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in run["history"]]
    readings = [{k: v for k, v in reading.items() if k != "at"} for reading in run["readings"]]
    for reading in run["readings"]:
        del reading["at"]
    same = ("path", "widths", "notes", "proof", "status", "recipe", "files")
    return {"history": epochs, "readings": readings, **{key: run[key] for key in same}}
