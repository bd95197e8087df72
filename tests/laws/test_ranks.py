"""Ranks of a process group cut alike, or none of them does, and nobody is left waiting."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

import espalier as es
from espalier.core import KindError

from . import ranks_job as job
from .launching import every_rank
from .ranks_job import WORLD, group, network, plan


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank of a group said of every case."""
    folder = tmp_path_factory.mktemp("ranks")
    every_rank([sys.executable, job.__file__, str(folder)])
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(WORLD)]


@pytest.mark.slow
def test_rank_0s_plan_is_cut_everywhere(said: list[dict[str, Any]]) -> None:
    model = network()
    alone: Any = es.cut(model, es.trace(model, torch.zeros(2, 4)), plan(0, 1, 2))
    expected = [json.loads(json.dumps(alone.espalier_surgery.to_data())), "float64", alone[0].weight.tolist()]
    for one in said:
        assert one["different_plans"] == [expected, [expected[0], expected[2]]]
        assert one["everyone"] == WORLD


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "first", "second"),
    [
        ("different_networks", "CutError: the ranks hold different", "CutError: the ranks hold different"),
        ("a_model_changed_since", "because rank 1: this model is not the traced", "CutError: this model is not the"),
        ("one_proof_fails", "CutError: nothing was cut on any rank, because rank 1: it", "ProofError: it differs"),
        ("one_is_wrapped", "because rank 1: cut takes the bare module", "KindError: cut takes the bare module"),
        ("a_plan_that_does_not_fit", "PlanError: group '0.weight:0'", "PlanError: group '0.weight:0'"),
        ("a_plan_damaged_on_the_way", "rank 1 received another plan", "rank 1 received another plan"),
    ],
)
def test_no_rank_cuts_where_one_cannot(said: list[dict[str, Any]], case: str, first: str, second: str) -> None:
    assert first in said[0][case] and second in said[1][case]


# ---- one process -----------------------------------------------------------------------------------------------------


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    with group(0, 1, tmp_path):
        yield


def test_a_group_of_one_is_as_none(alone: None) -> None:
    model = network()
    small: Any = es.cut(model, es.trace(model, torch.zeros(2, 4)), plan(0, 1))
    assert small[0].out_features == 2 and small.espalier_proof == "float64"


@pytest.mark.parametrize("wrap", [DataParallel, DistributedDataParallel])
def test_wrapped_models_are_to_be_unwrapped(wrap: Callable[[nn.Module], nn.Module], alone: None) -> None:
    model = network()
    graph = es.trace(model, torch.zeros(2, 4))
    wrapped = wrap(model)
    kind = type(wrapped).__name__
    for use in (lambda m: es.trace(m, torch.zeros(2, 4)), lambda m: es.cut(m, graph, plan(0, 1))):
        with pytest.raises(KindError, match=f"the model is {kind}: give its .module"):
            use(wrapped)
        with pytest.raises(KindError, match=f"its 0 is {kind}"):
            use(nn.Sequential(wrapped))
    assert type(es.cut(wrapped.module, graph, plan(0, 1))) is nn.Sequential


def test_sharded_models_are_refused(alone: None) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor, Replicate, distribute_tensor

    mesh = init_device_mesh("cpu", (1,))
    model: Any = network()
    fully_shard(model, mesh=mesh)
    with pytest.raises(KindError, match="the model is FSDPModule: trace and cut the whole"):
        es.trace(model, torch.zeros(2, 4))
    model = network()
    model[0].weight = nn.Parameter(distribute_tensor(model[0].weight.data, mesh, [Replicate()]))
    assert isinstance(model[0].weight.data, DTensor)
    with pytest.raises(KindError, match="0.weight is a DTensor"):
        es.trace(model, torch.zeros(2, 4))
