"""Laws of operators: with widths filled in, a recorded call has the shapes that the cut network's own call has."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import espalier as es
from espalier.graph.operators import Counts, operators

from ..patterns import BY_NAME, PATTERNS, Pattern
from ..patterns.masking import build, counted_plan

# Whether PyTorch copies or views can change with sizes.
VIEWS = {f"aten.{name}" for name in ("view", "_unsafe_view", "clone", "_reshape_alias", "expand", "permute")}
BY_VALUE = {"experts_top"}

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections", "ignore:.*weight_norm. is deprecated")


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.name)
def test_shapes_are_those_of_the_cut_network(pattern: Pattern) -> None:
    model, example = build(pattern)
    graph = es.trace(model, example)
    plan = es.Plan(counted_plan(graph, graph.groups, seed=1), graph.fingerprint)
    if pattern.refused or not plan.keep or pattern.name in BY_VALUE:
        pytest.skip("nothing is cut, or shapes hang on values")
    again = es.trace(es.cut(model, graph, plan, prove=False), example)
    before, after = ([op for op in one.records[0].ops if op.name not in VIEWS] for one in (graph, again))
    if [op.name for op in before] != [op.name for op in after]:
        pytest.skip("PyTorch chooses other operators at these sizes")
    calls = {id(op): later for op, later in zip(before, after, strict=True)}
    shapes = again.records[0].shapes
    for one in operators(graph, batch=2):
        if one.op.name in VIEWS:
            continue
        widths = Counts.of(one.polynomials, len(graph.groups)).values(list(graph.counts(plan).values()))
        later = calls[id(one.op)]
        values = dict(zip([*one.op.refs(), one.op.outs[0]], [*later.refs(), later.outs[0]], strict=True))
        assert {v: shapes[values[v]] for v in one.templates} == one.at(np.round(widths).astype(int)).shapes, one.key


@pytest.mark.parametrize("name", ["attention_sdpa", "conv2d", "vision_cls_token"])
def test_the_batch_scales_what_depends_on_the_input(name: str) -> None:
    graph = es.trace(*build(BY_NAME[name]))
    shapes = graph.records[0].shapes
    for one, two, six in zip(*(operators(graph, batch) for batch in (1, 2, 6)), strict=True):
        small, traced, large = (each.at(each.widths) for each in (one, two, six))
        assert traced.shapes == {value: shapes[value] for value in traced.shapes}
        if one.kind in ("convolution", "addmm", "mm", "bmm", "scaled_dot_product_attention", "layer_norm"):
            assert 6 * np.prod(small.out) == 3 * np.prod(traced.out) == np.prod(large.out)
        assert all(small.shapes[v] == large.shapes[v] for v in small.shapes if v in graph.records[0].names)


def test_layers_that_look_alike_share_a_key() -> None:
    graph = es.trace(es.model("espalier:cifar_resnet20"), torch.zeros(2, 3, 32, 32))
    keys = [one.key for one in operators(graph)]
    assert len(set(keys)) < len(keys)
