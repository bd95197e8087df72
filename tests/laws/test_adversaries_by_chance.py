"""What is random in a network is proved, and hides no wrong pairing."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import espalier as es
from espalier.core import ProofError

from ..patterns.base import Net
from .wrong_pairings import PLAN, Hidden, every_other, pair_wrongly


def dropped(net: Any, z: Tensor, y: Tensor) -> Any:
    return (net.c(F.dropout(y.relu(), 0.3)), F.dropout(z, 0.5)) if net.training else net.c(y.relu())


def skipped(net: Any, z: Tensor, y: Tensor) -> Any:
    """Stochastic depth as timm and torchvision write it."""
    return net.c(y) + z * z.new_empty(len(z), 1).bernoulli_(0.8).div_(0.8) if net.training else net.c(y)


def floored(net: Any, z: Tensor, y: Tensor) -> Any:
    return net.c(y) + z * (0.4 + torch.rand(len(z), 1, dtype=z.dtype)).floor() if net.training else net.c(y)


def below(net: Any, z: Tensor, y: Tensor) -> Any:
    return net.c(y) + z * (torch.rand(len(z), 1) < 0.4) if net.training else net.c(y)


def layer_drop(net: Any, z: Tensor, y: Tensor) -> Any:
    """A whole layer is left out by a number that Python looks at (OPT, Wav2Vec 2)."""
    return net.c(y) + z if net.training and torch.rand([]) > 0.1 else net.c(y)


def noisy(net: Any, z: Tensor, y: Tensor) -> Any:
    return net.c(y) + z * torch.randn_like(z) if net.training else net.c(y)


def by_python(net: Any, z: Tensor, y: Tensor) -> Any:
    return net.c(y) + (z if random.random() < 0.9 else 2 * z) if net.training else net.c(y)


RANDOM = [dropped, skipped, floored, below, layer_drop, noisy, by_python]


@pytest.mark.parametrize("after", RANDOM)
def test_a_wrong_pairing_that_only_random_training_shows_is_refused(
    after: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model, example = Hidden(after).eval(), torch.randn(16, 4)
    right = es.trace(model, example)
    assert es.cut(model, right, every_other(right)).espalier_proof == "float64"
    pair_wrongly(monkeypatch)
    before = random.getstate()
    with pytest.raises(ProofError, match="train mode"):
        es.cut(model, es.trace(model, example), PLAN)
    assert random.getstate() == before


DRAWN: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "gumbel_softmax": lambda net, y: y * F.gumbel_softmax(y, dim=1).sum(1, keepdim=True),
    "reparametrised": lambda net, y: y + torch.randn_like(y) * y.exp(),
    "noise_of_its_width": lambda net, y: y + torch.rand(net.one.out_features, dtype=y.dtype),
    "order": lambda net, y: y[torch.randperm(len(y))],
    "rows_by_chance": lambda net, y: y[torch.multinomial(y.abs().sum(1), 4)],
    "masked_by_chance": lambda net, y: y.masked_fill(torch.rand_like(y) < 0.3, 0),
    "recurrent": lambda net, y: net.cell(y[None])[0][0],
}


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_random_in_a_network_is_proved(name: str) -> None:
    torch.manual_seed(0)
    model = Net(
        lambda net, x: net.head(DRAWN[name](net, net.one(x).relu())),
        one=nn.Linear(4, 8),
        cell=nn.LSTM(8, 8, 2, dropout=0.5),
        head=nn.Linear(8, 4),
    )
    example = torch.randn(6, 4)
    graph = es.trace(model.eval(), example)
    assert graph.groups
    assert es.cut(model, graph, every_other(graph)).espalier_proof in ("float64", "float32")
