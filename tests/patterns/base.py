"""What a pattern is: one small network, an example, and what the engine owes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """A small network that writes one common idea in one common way.

    Attributes:
        name: what it shows; test ids are these.
        make: builds the network.
        example: makes its input at batch 2: a tensor, a tuple of positionals, or a dict of keywords.
        expect: the least number of prunable groups that a good engine finds; 0 where everything must be frozen.
        zero_ok: setting units to zero is the same function as removing them, once norm layers count kept units only;
            False where the network's own code takes statistics (then only groups without statistics are compared).
        unmaskable: why zeros are not the same function here although nothing is a statistic; "" mostly.
        refused: why a cut of this network may be refused; "" where it must be proved.
    """

    name: str
    make: Callable[[], nn.Module]
    example: Callable[[], Any]
    expect: int
    zero_ok: bool = True
    unmaskable: str = ""
    refused: str = ""


class Net(nn.Module):
    """A network in one expression: ``Net(lambda net, x: net.two(net.one(x)), one=nn.Linear(4, 8), two=...)``."""

    def __init__(self, run: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Any) -> Any:
        return self.run(self, *inputs)


def image(channels: int = 3, *size: int) -> Callable[[], Tensor]:
    """Return a maker of a batch of two images; sizes collide with channel counts on purpose."""
    return partial(torch.randn, 2, channels, *(size or (8, 8)))


def tokens(count: int = 4, width: int = 8) -> Callable[[], Tensor]:
    """Return a maker of a batch of two sequences of ``count`` tokens."""
    return partial(torch.randn, 2, count, width)


def ids(count: int = 4, vocabulary: int = 8) -> Callable[[], Tensor]:
    """Return a maker of a batch of two sequences of token numbers."""
    return partial(torch.randint, 0, vocabulary, (2, count))
