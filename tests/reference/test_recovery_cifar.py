"""Recovery of a real network on real images: what the plain L1 cut destroys comes back without training."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from espalier import Budget, criteria, cut, load_task, plan, recovery, trace
from espalier.zoo import cifar_resnet
from espalier.zoo.weights import load_weights


@pytest.mark.slow
def test_a_cut_resnet20_keeps_its_accuracy_within_13_points(data_folder: Path):
    pytest.importorskip("pyarrow")
    task = load_task(f"parquet:{data_folder / 'cifar10'}")
    dense = cifar_resnet.cifar_resnet20().eval()
    load_weights(dense, data_folder / "weights" / "cifar10-resnet20.safetensors")
    graph = trace(dense, task.example())
    scores = criteria.magnitude(dense, graph, norm=1, reduce="first", normalise="none")
    stream = ("conv1.weight:0", "layer2.0.conv2.weight:0", "layer3.0.conv2.weight:0")
    half = plan(graph, scores, Budget(macs=1 / 2.1), strategy="uniform", keep=stream)
    small = cut(dense, graph, half, prove=False)
    validation = list(islice(task.validation, 4))
    whole, plain = (task.evaluate(model, validation) for model in (dense, small))
    batches = list(islice(replace(task.train, augment=None, batch_size=64), 8))
    report = recovery.least_squares(dense, small, graph, half, batches)
    assert plain < whole - 0.5
    assert task.evaluate(small, validation) > whole - 0.13
    frozen = [line.weight for line in report if line.reason == "it is frozen, and others are not"]
    assert frozen == ["layer2.0.shortcut.weight", "layer3.0.shortcut.weight"]
