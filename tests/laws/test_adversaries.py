"""Cuts that are wrong must not pass: each network hides a wrong pairing where a careless proof does not look.

``wrongly`` plants the fault: the rule of ``roll`` is made to forget that a shift counts positions, so that a cut pairs
channels with other channels' weights. Every network below must then be refused; without the fault it must be proved.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import espalier as es
from espalier.core import BudgetError, CutError, ModelError, ProofError
from espalier.graph.rules import pieces

from ..patterns.base import Net
from ..patterns.states import keeping, only_inference


class Hidden(nn.Module):
    """Two layers with rolled channels between them, and something after that may hide a wrong result."""

    def __init__(self, after: Callable[[nn.Module, Tensor, Tensor], Any], shift: int = -1) -> None:
        super().__init__()
        self.a, self.b, self.c, self.after, self.shift = nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(8, 4), after, shift

    def forward(self, x: Tensor) -> Any:
        y = self.a(x)
        return self.after(self, self.b(y.roll(self.shift_of(), -1).relu()), y)

    def shift_of(self) -> int:
        return {-1: -1, -2: -2, 9: 9, 3: 3}[self.shift]  # a literal, without provenance


def masked(_: nn.Module, z: Tensor, __: Tensor) -> Tensor:
    return z.masked_fill(torch.tensor([True, False, False, False]), -1e9)


def faint(net: Any, z: Tensor, y: Tensor) -> Tensor:
    return net.c(y.relu()) + 2e-4 * z


def in_training(net: Any, z: Tensor, y: Tensor) -> Any:
    return (net.c(y.relu()), z) if net.training else net.c(y.relu())


AFTER = {
    "plain": lambda _, z, __: z,
    "argmax": lambda _, z, __: z.argmax(-1),
    "sign": lambda _, z, __: z > 0,
    "masked": masked,
    "faint": faint,
    "in_training": in_training,
    "deque": lambda _, z, __: deque([z]),
}
PLAN = es.Plan({"a.weight:0": (2, 3, 4, 5)})


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
    keep = {name: tuple(range(0, size, 2)) for name, size in right.sizes.items()}
    assert es.cut(model, right, es.Plan(keep)).espalier_proof == "float64"
    monkeypatch.setattr(pieces, "_state_shift", lambda *_: None)
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
    assert es.cut(model, graph, whole_plan(graph)).espalier_proof in ("float64", "float32")


class ByIds(Hidden):
    """A gate from a table, whose row 0 is closed."""

    def __init__(self) -> None:
        super().__init__(lambda _, z, __: z)
        self.table = nn.Embedding(8, 4, padding_idx=0)

    def forward(self, x: Tensor, ids: Tensor) -> Any:
        return self.c(self.a(x)) + super().forward(x) * self.table(ids.view(-1)).view(*ids.shape, -1)


class ByMask(Hidden):
    """A mask whose last column stops what is wrong."""

    def __init__(self) -> None:
        super().__init__(lambda _, z, __: z)

    def forward(self, x: Tensor, mask: Tensor) -> Any:
        return self.c(self.a(x)) + super().forward(x) * mask[:, -1:]


@pytest.mark.parametrize(
    ("kind", "whole"),
    [(ByIds, torch.zeros(16, dtype=torch.long)), (ByMask, torch.tensor([[1, 1, 0]] * 16))],
)
def test_whole_numbers_that_hide_a_wrong_pairing_prove_nothing(
    kind: type[Hidden], whole: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model, example = kind().eval(), (torch.randn(16, 4), whole)
    right = es.trace(model, example)
    assert es.cut(model, right, whole_plan(right)).espalier_proof == "float64"
    monkeypatch.setattr(pieces, "_state_shift", lambda *_: None)
    with pytest.raises(ProofError, match="masked original"):
        es.cut(model, es.trace(model, example), PLAN)


def whole_plan(graph: Any) -> es.Plan:
    return es.Plan({name: tuple(range(0, size, 2)) for name, size in graph.sizes.items()})


class Lengths(nn.Module):
    """Lengths that must be sorted, and fit: others than the example's are no input."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRU(4, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        assert int(lengths[0]) == x.shape[1], "the first is the longest"
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return self.head(self.cell(packed)[1][0])


class Chosen(nn.Module):
    """What runs depends on where the largest number stands."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.other, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor, numbers: Tensor) -> Tensor:
        y = self.stem(x).relu()
        return self.head(y if int(numbers.argmax()) == 0 else self.other(y))


@pytest.mark.parametrize(
    ("kind", "numbers"), [(Lengths, [5, 4, 3, 2]), (Lengths, [5, 5, 2, 2]), (Chosen, [9, 2, 1, 3])]
)
def test_whole_numbers_that_lead_elsewhere_are_left_as_they_are(kind: type[nn.Module], numbers: list[int]) -> None:
    torch.manual_seed(0)
    model, example = kind().eval(), (torch.randn(4, 5, 4), torch.tensor(numbers))
    graph = es.trace(model, example)
    assert es.cut(model, graph, whole_plan(graph)).espalier_proof == "float64"


@pytest.mark.parametrize("name", AFTER)
def test_a_wrong_pairing_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_state_shift", lambda *_: None)
    torch.manual_seed(0)
    model, example = Hidden(AFTER[name]).eval(), torch.randn(16, 4)
    graph = es.trace(model, example)
    assert graph.sizes["a.weight:0"] == 8, "the planted fault frees every unit"
    with pytest.raises(ProofError) as refused:
        es.cut(model, graph, PLAN)
    assert "es.to_graph_module" not in str(refused.value), "the record would pair as wrongly"


@pytest.mark.parametrize("shift", [-1, -2, 9, 3])
def test_rolled_channels_are_cut_right(shift: int) -> None:
    torch.manual_seed(0)
    model, example = Hidden(AFTER["plain"], shift).eval().double(), torch.randn(16, 4, dtype=torch.float64)
    graph = es.trace(model, example)
    plan = es.Plan({name: tuple(range(0, size, 2)) for name, size in graph.sizes.items()})
    small = es.cut(model, graph, plan, prove=False)
    removed = [
        (slot, sorted(set(range(size)) - set(plan.keep[name])))
        for name, size in graph.sizes.items()
        for slot in graph.groups[name].slots
    ]
    with torch.no_grad():
        for slot, units in removed:
            model.get_parameter(slot.tensor).index_fill_(slot.dim, torch.tensor(slot.positions[units].ravel()), 0)
        torch.testing.assert_close(small(example), model(example), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_example_without_numbers_proves_nothing(value: float) -> None:
    model, example = Hidden(AFTER["plain"], 3).eval(), torch.full((2, 4), value)
    graph = es.trace(model, example)
    name, size = next(iter(graph.sizes.items()))
    with pytest.raises(ProofError, match="no finite number"):
        es.cut(model, graph, es.Plan({name: tuple(range(size // 2))}))


def test_a_model_without_visible_outputs_is_refused() -> None:
    with pytest.raises(ModelError, match="no tensor was found"):
        es.trace(Hidden(lambda *_: None), torch.randn(2, 4))


def test_an_unproved_cut_does_not_keep_an_older_proof() -> None:
    model, example = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4)), torch.randn(2, 4)
    graph = es.trace(model, example)
    small = es.cut(model, graph, es.Plan({"0.weight:0": tuple(range(6))}))
    assert small.espalier_proof == "float64"
    again = es.trace(small, example)
    smaller = es.cut(small, again, es.Plan({"0.weight:0": (0, 1)}), prove=False)
    assert smaller.espalier_proof == "not proved"


def test_train_mode_with_other_sizes_is_another_record() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.h, self.q, self.o = 2, nn.Linear(4, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = 2 if self.training else self.h
            y = self.q(x).view(x.shape[0], x.shape[1], h, -1)
            return self.o((y * y.mean(-1, keepdim=True)).flatten(2))

    graph = es.trace(Heads(), torch.randn(2, 3, 4))
    assert all(group.size != 2 for group in graph.groups.values()), "a literal in train mode keeps the heads"


@pytest.mark.parametrize("example", ["a picture", None, 3, [1.0, 2.0]])
def test_an_example_of_the_wrong_kind_is_one_clear_error(example: Any) -> None:
    with pytest.raises(ModelError, match="holds no tensor"):
        es.trace(Hidden(AFTER["plain"]), example)


def test_a_number_is_not_a_budget() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
    graph = es.trace(model, torch.randn(2, 4))
    with pytest.raises(BudgetError, match="es.Budget"):
        es.plan(graph, es.criteria.magnitude(model, graph), 0.5)  # type: ignore[arg-type]


def test_a_network_for_inference_only_is_proved_in_eval_mode() -> None:
    model, example = keeping(only_inference)().eval(), torch.randn(2, 4, 4)
    graph = es.trace(model, example)
    assert es.cut(model, graph, es.Plan({"one.weight:0": (1, 4, 6)})).espalier_proof == "float64"


class Scaled(nn.Module):
    """Attention whose scale loses the size it comes from; with one token, softmax hides whatever the scale is."""

    def __init__(self, scale: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 4)
        self.heads, self.width, self.scale = 2, 4, scale

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (m(x).view(*x.shape[:2], self.heads, self.width).transpose(1, 2) for m in (self.q, self.k, self.v))
        y = (q @ k.transpose(-1, -2) * self.scale(self, q)).softmax(-1) @ v
        return self.o(y.transpose(1, 2).flatten(2))


SCALES = {
    "math.log": lambda _, q: 1 / math.log(q.shape[-1]),
    "float of numpy": lambda _, q: float(1 / np.float64(q.shape[-1])),
    "tensor of an attribute": lambda net, _: torch.tensor(net.width).rsqrt(),
    "tensor of a size": lambda _, q: torch.tensor(q.shape[-1]).rsqrt(),
}


@pytest.mark.parametrize("name", SCALES)
def test_an_example_that_hides_a_wrong_value_on_the_way_proves_nothing(name: str) -> None:
    torch.manual_seed(0)
    model, example = Scaled(SCALES[name]).eval(), torch.randn(1, 1, 4)
    graph = es.trace(model, example)
    (head,) = (g for g, size in graph.sizes.items() if size == 4 and g.startswith("q.weight"))
    counts = graph.feasible({head: 2}, held=[head])
    keep = {g: tuple(range(n)) for g, n in counts.items() if n < graph.sizes[g]}
    assert head in keep
    with pytest.raises(ProofError, match=r"(mul|rsqrt) at .*test_adversaries\.py.* computes other values") as refused:
        es.cut(model, graph, es.Plan(keep))
    assert "es.to_graph_module" in str(refused.value), "its Python alone stands in the way"


def test_a_model_with_other_tensors_is_not_the_traced_one() -> None:
    small, large = es.model("espalier:cifar_resnet20"), es.model("espalier:cifar_resnet32")
    graph = es.trace(small, torch.randn(2, 3, 32, 32))
    name, size = next(iter(graph.sizes.items()))
    with pytest.raises(CutError, match="is not the traced one"):
        es.cut(large, graph, es.Plan({name: tuple(range(size // 2))}))


def test_a_dense_model_that_does_not_run_is_said_to() -> None:
    model, ids = nn.Sequential(nn.Embedding(8, 6), nn.Linear(6, 4)), torch.tensor([[1, 50]])
    graph = es.trace(model, ids)  # on meta nobody looks at the numbers
    with pytest.raises(ModelError, match="does not run on its example"):
        es.cut(model, graph, es.Plan({next(iter(graph.groups)): (0, 1)}))


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_refused() -> None:
    scripted = torch.jit.trace(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4)), torch.randn(2, 4))
    graph = es.trace(scripted, torch.randn(2, 4))
    name, size = next(iter(graph.sizes.items()))
    for prove in (True, False):
        with pytest.raises(CutError, match="TorchScript"):
            es.cut(scripted, graph, es.Plan({name: tuple(range(size // 2))}), prove=prove)
