"""Correlation redundancy against NumPy's correlations of what hooks recorded."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from espalier import criteria

from .criteria_networks import batches, network


def test_correlation_redundancy() -> None:
    model, graph = network("mlp")
    data = batches("mlp", (8, 7))
    scores = criteria.correlation_redundancy(model, graph, batches=data)["one.weight:0"]
    hidden = torch.tanh(model.one(torch.cat([x for x, _ in data]))).detach().numpy()
    correlations = np.abs(np.corrcoef(hidden.T)) - 2 * np.eye(6)
    np.testing.assert_allclose(scores.numpy(), 1 - correlations.max(1), rtol=1e-6)


def test_units_that_follow_another_or_never_change_are_worth_nothing() -> None:
    model, graph = network("mlp")
    with torch.no_grad():
        model.one.weight[2], model.one.bias[2] = -model.one.weight[4], -model.one.bias[4]
        model.one.weight[0] = 0
    scores = criteria.correlation_redundancy(model, graph, batches=batches("mlp", (8, 7)))["one.weight:0"]
    assert scores[[0, 2, 4]].tolist() == pytest.approx([0, 0, 0], abs=1e-9)
    assert float(scores[[1, 3, 5]].min()) > 1e-3
