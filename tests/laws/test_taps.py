"""Laws of taps: they see what readers read, and gradients are those of a gate a sample."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import espalier as es
from espalier.core import ModelError

from ..patterns.masking import call, close
from .gated import Attention, Residual, loss, made


@pytest.mark.parametrize("kind", [Residual, Attention])
def test_taps_are_gate_gradients_of_each_sample(kind: type[nn.Module]) -> None:
    """Brute force: a forward and backward a sample, with gates; a skip branch's gradient must not be counted."""
    model, x = made(kind)
    graph = es.trace(model, x)
    with es.taps(model, graph, gradients=True) as taps:
        for _ in range(2):  # a forward forgets the one before it
            torch.stack([loss(model(x)[i]) for i in range(3)]).sum().backward()
        found = {name: tap.gradients() for name, tap in taps.items()}
    assert len(found) >= len(graph.groups) - 1
    for name, gradients in found.items():
        expected = []
        for sample in range(3):
            with es.gates(model, graph, [name]) as gates:
                loss(model(x[sample : sample + 1])[0]).backward()
                expected.append(gates[name].grad)
        torch.testing.assert_close(gradients, torch.stack(expected), rtol=1e-9, atol=1e-10, msg=name)  # type: ignore[arg-type]


def test_taps_see_what_readers_read() -> None:
    model, x = made(Residual)
    graph = es.trace(model, x)
    names = ["one.weight:0", "stem.weight:0"]
    with torch.no_grad(), es.taps(model, graph, names, read=torch.clone) as taps:
        model(x)
    stem = functional.relu(model.stem_norm(model.stem(x)))  # type: ignore[operator]
    y = torch.sigmoid(model.one_norm(model.one(stem)))  # type: ignore[operator]
    y = functional.relu(model.depthwise_norm(model.depthwise(y)))  # type: ignore[operator]
    last = functional.relu(stem + model.two_norm(model.two(y)))  # type: ignore[operator]
    assert list(taps) == names
    assert close(taps[names[0]].readings, [y.flatten(2)], 1e-12)
    assert close(taps[names[1]].readings, [stem.flatten(2), last.flatten(2)], 1e-12)
    assert close([t.mean(2) for t in taps[names[1]].readings], [stem.mean((2, 3)), last.mean((2, 3))], 1e-12)


def test_a_hidden_reader_is_an_error_and_not_a_gap() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.weight = nn.Linear(4, 6), nn.Parameter(torch.randn(6, 3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum("bi,io->bo", self.one(x), self.weight)

    model, x = Hidden().double(), torch.randn(2, 4).double()
    graph = es.trace(model, x)
    with es.taps(model, graph) as taps:
        call(model, x)
    with pytest.raises(ModelError, match="einsum"):
        _ = taps["one.weight:0"].readings
