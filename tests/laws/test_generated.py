"""Random small networks: every cut is proved, or refused with a reason; and zeros in the dense network agree.

``ESPALIER_HYPOTHESIS=nightly`` searches longer, from a new seed every time.
"""

from __future__ import annotations

import collections
import os
import warnings

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import espalier as es
from espalier.core.errors import CutError

from ..patterns.masking import close, counted_plan, free_of_statistics, liven_, masked_outputs, outputs
from ..patterns.other_sizes import differing
from .networks import Spec, build, specs

NIGHTLY = os.environ.get("ESPALIER_HYPOTHESIS") == "nightly"
EXAMPLES = 3000 if NIGHTLY else 60
MOST_REFUSED_SHARE = 0.05

search = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not NIGHTLY,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


def fresh(spec: Spec) -> tuple[nn.Module, torch.Tensor]:
    """Build the same network again."""
    model, example = build(spec)
    liven_(model)
    return model, example


def outcome(spec: Spec, seed: int, ratio: float) -> str:
    """Cut a random plan and hold it against both oracles; return "proved", "refused" or "nothing"."""
    model, example = fresh(spec)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = es.trace(model, example)
    keep = counted_plan(graph, graph.groups, seed, ratio)
    comparable = free_of_statistics(graph) if "experts" in repr(spec) else list(graph.groups)
    if not keep:
        return "nothing"
    try:
        small = es.cut(model, graph, es.Plan(keep, graph.fingerprint), prove=True)
        compare_with_zeros(spec, graph, counted_plan(graph, comparable, seed + 1))
    except CutError as error:
        assert any(name in str(error) for name in graph.groups), f"a refusal that names no group: {error}"
        return "refused"
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before), "the user's model was changed"
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    trains(small, example)
    return "proved"


def compare_with_zeros(spec: Spec, graph: es.graph.Graph, keep: dict[str, tuple[int, ...]]) -> None:
    """Hold a proved cut against the dense network with zeros: it is right, or it was refused."""
    model, example = fresh(spec)
    small = es.cut(model, graph, es.Plan(keep, graph.fingerprint), prove=True)
    assert close(outputs(small, example), masked_outputs(model, graph.groups, keep, example)), f"differs under {keep}"
    elsewhere = differing(lambda: fresh(spec)[0], small, graph.groups, keep, example)
    assert not elsewhere, f"differs under {keep} at {elsewhere}"


def trains(small: nn.Module, example: torch.Tensor) -> None:
    """Take one gradient in training mode."""
    small.train()(example).pow(2).sum().backward()
    assert all(p.grad is None or p.grad.shape == p.shape for p in small.parameters())


@pytest.mark.slow
def test_every_cut_is_proved_or_refused(record_property: pytest.RecordProperty) -> None:
    counts: collections.Counter[str] = collections.Counter()

    @search
    @given(spec=specs(), seed=st.integers(0, 999), ratio=st.sampled_from((0.25, 0.5, 0.75)))
    def law(spec: Spec, seed: int, ratio: float) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            counts[outcome(spec, seed, ratio)] += 1

    law()
    tried = counts["proved"] + counts["refused"]
    record_property("outcomes", dict(counts))
    assert counts["proved"] >= 0.8 * EXAMPLES, counts
    assert counts["refused"] <= MOST_REFUSED_SHARE * tried, counts
