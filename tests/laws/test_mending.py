"""Recovery holds no more activations than it may, and says when it read less for that."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import espalier as es
from espalier.recipes import mending


@pytest.mark.parametrize("most", [2, 3, 7, 16, 63, 64])
def test_thinned_batches_hold_no_more_and_leave_two(most: int) -> None:
    data: list[Any] = [({"x": torch.arange(16.0) + 16 * i}, torch.arange(16)) for i in range(4)]
    thin = mending.thinned(data, most)
    counts = [len(inputs["x"]) for inputs, _ in thin]
    assert len(thin) >= 2 and sum(counts) <= most and sum(counts) > most // 2
    for (inputs, targets), (whole, _) in zip(thin, data, strict=False):
        assert len(targets) == len(inputs["x"]) and torch.equal(inputs["x"], whole["x"][: len(targets)])


def test_a_small_memory_is_said_and_mends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    task = es.load_task("digits", batch_size=64)
    model = es.model("espalier:digits_cnn").eval()
    graph = es.trace(model, task.example())
    plan = es.plan(graph, es.criteria.magnitude(model, graph), es.Budget(macs=0.5))
    monkeypatch.setattr(mending, "_HELD_BYTES", 8 * graph.cost().activations * 40)
    plain, small = es.cut(model, graph, plan), es.cut(model, graph, plan)
    notes = mending.mended(("least_squares",), (model, small), plan, task, batches=16)
    assert len(notes) == 1 and notes[0].startswith("recovery by least_squares read 32 examples: more would not")
    x = task.example(32)
    with torch.no_grad():
        lost, mended = (torch.dist(model(x), one.eval()(x)) for one in (plain, small))
    assert mended < lost
