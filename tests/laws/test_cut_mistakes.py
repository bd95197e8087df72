"""What cannot be traced, planned or cut gets one clear error, and a network says how it was proved."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import espalier as es
from espalier.core import BudgetError, CutError, ModelError

from ..patterns.states import keeping, only_inference
from .wrong_pairings import Hidden


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
    assert smaller.espalier_proof == "not proved" and smaller.espalier_gap is None


@pytest.mark.parametrize("example", ["a picture", None, 3, [1.0, 2.0]])
def test_an_example_of_the_wrong_kind_is_one_clear_error(example: Any) -> None:
    with pytest.raises(ModelError, match="holds no tensor"):
        es.trace(Hidden(), example)


def test_a_proof_says_how_near_the_outputs_are() -> None:
    model, example = nn.Sequential(nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 64)), torch.randn(2, 64)
    graph = es.trace(model, example)
    small = es.cut(model, graph, es.Plan({"0.weight:0": tuple(range(1, 256, 2))}))
    assert 0 < small.espalier_gap < 1e-12


def test_a_number_is_not_a_budget() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
    graph = es.trace(model, torch.randn(2, 4))
    with pytest.raises(BudgetError, match="es.Budget"):
        es.plan(graph, es.criteria.magnitude(model, graph), 0.5)  # type: ignore[arg-type]


def test_a_network_for_inference_only_is_proved_in_eval_mode() -> None:
    model, example = keeping(only_inference)().eval(), torch.randn(2, 4, 4)
    graph = es.trace(model, example)
    assert es.cut(model, graph, es.Plan({"one.weight:0": (1, 4, 6)})).espalier_proof == "float64"


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
