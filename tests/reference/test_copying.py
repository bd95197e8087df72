"""``deep_copy`` against ``copy.deepcopy``: the same objects in the same places, and no object of the original."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from espalier.graph.recording.copying import deep_copy


class Itself(nn.Linear):
    """Says itself how it is copied."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Itself:
        twin = Itself(self.in_features, self.out_features)
        twin.note = "by itself"  # type: ignore[assignment]
        memo[id(self)] = twin
        return twin


class Counted(nn.Module):
    """Leaves something out of its state, and puts it back."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = {"dear": 1}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "cache": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.cache["put"] = 2


class Network(nn.Module):
    """Ties, cycles, modules in plain lists, shared containers, hooks, a missing child."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.again = self.first
        self.absent = None
        self.register_module("missing", None)
        self.register_buffer("table", torch.arange(4.0))
        self.view = self.table
        self.parts = [nn.Conv2d(1, 2, 3), self.first]
        object.__setattr__(self, "hidden", self.second)
        self.sizes, self.same = {"a": [1, 2]}, {}
        self.empty = self.same
        self.itself = Itself(2, 2)
        self.counted = Counted()
        self.first.register_forward_hook(_hook)
        self.children_by_name = self._modules  # the very dictionary


def _hook(*_: Any) -> None:
    return None


def places(tree: Any, path: str = "", seen: dict[int, str] | None = None) -> Iterator[tuple[str, Any]]:
    """Yield where each object is met, and for one met before the first place."""
    seen = {} if seen is None else seen
    if isinstance(tree, int | float | str | bool | type(None)) or callable(tree) and not isinstance(tree, nn.Module):
        yield path, tree
        return
    if id(tree) in seen:
        yield path, f"is {seen[id(tree)]}"
        return
    seen[id(tree)] = path
    yield path, type(tree)
    if isinstance(tree, torch.Tensor):
        yield f"{path}.values", (tree.tolist(), tree.requires_grad)
    elif isinstance(tree, nn.Module):
        yield from places(vars(tree), f"{path}.vars", seen)
    elif isinstance(tree, dict | OrderedDict):
        for key, value in tree.items():
            yield from places(value, f"{path}[{key}]", seen)
    elif isinstance(tree, list | tuple | set):
        for number, value in enumerate(tree):
            yield from places(value, f"{path}[{number}]", seen)


@pytest.mark.parametrize("make", [Network, lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())])
def test_the_copy_is_deepcopy_s(make: Any) -> None:
    torch.manual_seed(0)
    model = make()
    torch.manual_seed(1)
    expected = list(places(copy.deepcopy(model)))
    torch.manual_seed(1)
    assert list(places(deep_copy(model, {}))) == expected


def test_what_stands_in_the_memo_takes_its_place() -> None:
    model = Network()
    new = nn.Parameter(torch.zeros(3, 3))
    twin = deep_copy(model, {id(model.first.weight): new})
    assert twin.first.weight is new and twin.second.weight is new and twin.parts[1].weight is new
