"""The benchmark of methods: every arm runs, others take the MACs that C2S2 found, and the tables compare pairs."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("fcntl", reason="claims between processes are locks of POSIX files")

from benchmarks import cifar, methods
from benchmarks.cifar_arms import Item, Place
from benchmarks.cifar_results import Ledger

from espalier.tasks import Data, load_task

OPTIONS = argparse.Namespace(studies=["fisher", "c2s2"], networks=[20], seeds=[0], ratio=2.0, epochs=2)


def net() -> nn.Module:
    torch.manual_seed(0)
    parts = [
        nn.Conv2d(3, 12, 3, 2),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 16, 3, 2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
    ]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))


def data() -> Data:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(96) % 4
    x = torch.randn(96, 3, 16, 16, generator=generator) + y.reshape(-1, 1, 1, 1) / 2
    return Data(train=(x[:64], y[:64]), validation=(x[64:80], y[64:80]), test=(x[80:], y[80:]))


@pytest.mark.filterwarnings("ignore:.*bfloat16.*")
def test_every_arm_runs_and_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods.es, "load_task", lambda *_, seed, **__: load_task(data(), batch_size=8, seed=seed))
    monkeypatch.setattr(methods, "dense_network", lambda *_: net())
    ledger, place = Ledger(tmp_path, methods.Timed), Place(tmp_path, tmp_path, torch.device("cpu"))
    items = methods.order(OPTIONS)
    assert [item.arm for item in items] == list(methods.ARMS) and items[6] == Item(20, methods.FOUND, "c2s2", 0, 2)
    how = (lambda item, place: methods.one(item, place, ledger), methods.key)
    cifar.work(items, ledger, place, how)
    rows = ledger.rows()
    assert [row.arm for row in rows] == list(methods.ARMS)
    found = next(row.macs for row in rows if row.arm == "c2s2")
    for row in rows:
        assert row.macs <= (0.5 * row.dense_macs if row.ratio else found) and row.latency_ratio > 0  # type: ignore[attr-defined]
    cifar.work(items, ledger, place, how)  # nothing is left to do
    assert len(ledger.rows()) == len(rows)
    text = methods.report(rows, ["fisher", "c2s2"])
    assert "ours is group_fisher" in text and "ours is c2s2" in text and "fisher_none" in text and "slimming" in text
