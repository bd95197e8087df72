"""What cannot be traced is refused in one clear sentence; what can only be traced in part is noted."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import espalier as es
from espalier.core import ModelError

from ..patterns.base import Net

X = torch.randn(2, 4)


def test_lazy_layers_are_named() -> None:
    model = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 4))
    with pytest.raises(ModelError, match=r"lazy layers .*0\.weight.* run it once"):
        es.trace(model, X)
    model(X)
    assert list(es.trace(model, X).groups) == ["0.weight:0"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantised_layers_are_named() -> None:
    float_model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
    try:
        model = torch.ao.quantization.quantize_dynamic(float_model, {nn.Linear}, dtype=torch.qint8)
    except RuntimeError as error:  # no quantised kernels in this build
        pytest.skip(str(error))
    with pytest.raises(ModelError, match="quantised layers .* cut the floating-point model"):
        es.trace(model, X)


def test_nested_tensors_are_named() -> None:
    def run(net: Net, x: Tensor) -> Tensor:
        return net.head(torch.nested.to_padded_tensor(net.stem(torch.nested.nested_tensor([x[:1], x])), 0.0))

    model = Net(run, stem=nn.Linear(4, 8), head=nn.Linear(8, 4))
    with pytest.raises(ModelError, match="Nested tensors cannot be recorded"):
        es.trace(model, X)


def test_flex_attention_is_named() -> None:
    flex = pytest.importorskip("torch.nn.attention.flex_attention")

    def run(net: Net, x: Tensor) -> Tensor:
        q = net.stem(x).view(1, 2, 2, 4)
        return net.head(flex.flex_attention(q, q, q).reshape(2, 8))

    with pytest.raises(ModelError, match="call scaled_dot_product_attention in its place"):
        es.trace(Net(run, stem=nn.Linear(4, 8), head=nn.Linear(8, 4)), X)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_noted_and_keeps_its_sizes() -> None:
    inner = torch.jit.script(nn.Sequential(nn.Linear(8, 8), nn.ReLU()))
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 8), inner, nn.Linear(8, 4))
    graph = es.trace(model, torch.randn(2, 3, 4))
    assert list(graph.groups) == ["0.weight:0"]
    assert any(note.startswith("2: TorchScript") for note in graph.notes)


def test_a_branch_that_the_example_does_not_reach_is_noted() -> None:
    def run(net: Net, x: Tensor) -> Tensor:
        return net.head(net.routes["small" if len(x) < 9 else "large"](net.stem(x)).relu())

    routes = nn.ModuleDict({"small": nn.Linear(8, 6), "large": nn.Linear(8, 6)})
    model = Net(run, stem=nn.Linear(4, 8), routes=routes, head=nn.Linear(6, 4))
    graph = es.trace(model, X)
    assert any("does not reach routes.large" in note for note in graph.notes), graph.notes
    assert not any("routes.large" in slot.tensor for group in graph.groups.values() for slot in group.slots)


def test_sparse_tensors_stay_whole() -> None:
    def run(net: Net, x: Tensor) -> Tensor:
        return net.head(torch.sparse.mm(net.mix, net.stem(x).t()).t())

    mix = torch.eye(8).to_sparse()
    model = Net(
        run, stem=nn.Linear(4, 8), mix=nn.Buffer(mix), head=nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    )
    graph = es.trace(model, X)
    assert {slot.tensor for group in graph.groups.values() for slot in group.slots} == {
        "head.0.weight",
        "head.0.bias",
        "head.2.weight",
    }
    plan = es.Plan({"head.0.weight:0": (0, 2)})
    assert es.cut(model, graph, plan)(X).shape == (2, 4)


def test_a_sparse_input_is_proved() -> None:
    model = Net(
        lambda net, x, a: net.head(torch.sparse.mm(a, net.stem(x)).relu()), stem=nn.Linear(4, 8), head=nn.Linear(8, 4)
    )
    example = (torch.randn(5, 4), torch.eye(5).roll(1, 0).to_sparse())
    graph = es.trace(copy.deepcopy(model), example)
    assert es.cut(model, graph, es.Plan({"stem.weight:0": (1, 3, 5)})).espalier_proof == "float64"


def test_a_half_precision_network_is_proved_in_float32_where_double_does_not_run() -> None:
    def run(net: Net, x: Tensor) -> Tensor:
        y = net.stem(x)
        if y.dtype == torch.float64:
            raise RuntimeError("this kernel has no double")
        return net.head(y.relu())

    model = Net(run, stem=nn.Linear(4, 8), head=nn.Linear(8, 4)).bfloat16()
    graph = es.trace(model, X.bfloat16())
    small = es.cut(model, graph, es.Plan({"stem.weight:0": (1, 3, 5)}))
    assert small.espalier_proof == "float32"
    assert small.stem.weight.dtype == torch.bfloat16
