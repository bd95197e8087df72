"""Ranks of a process group cut alike, or none of them does, and nobody is left waiting."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

import espalier as es
from espalier.core import EspalierError, KindError, ProofError
from espalier.graph import ranks

WORLD = 2
PATIENCE_SECONDS = 120


def network(width: int = 8) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 6), nn.ReLU(), nn.Linear(6, 2))


def plan(*units: int) -> es.Plan:
    return es.Plan({"0.weight:0": units})


@contextmanager
def group(rank: int, world: int, folder: Path) -> Iterator[None]:
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=PATIENCE_SECONDS / 2),
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()


# ---- what every rank does; each case returns what can be compared ----------------------------------------------------


def different_plans(rank: int) -> Any:
    model = network()
    graph = es.trace(model, torch.zeros(2, 4))
    mine = plan(0, 1, 2) if rank == 0 else plan(4, 5)
    small: Any = es.cut(model, graph, mine)
    in_place: Any = es.cut_(model, graph, mine, prove=False)
    return [
        [small.espalier_surgery.to_data(), small.espalier_proof, small[0].weight.tolist()],
        [in_place.espalier_surgery.to_data(), in_place[0].weight.tolist()],
    ]


def different_networks(rank: int) -> Any:
    model = network(width=8 + rank)
    return es.cut(model, es.trace(model, torch.zeros(2, 4)), plan(0, 1))


def a_model_changed_since(rank: int) -> Any:
    graph = es.trace(network(), torch.zeros(2, 4))
    return es.cut(network(width=8 + rank), graph, plan(0, 1))


def one_proof_fails(rank: int) -> Any:
    model = network()
    graph = es.trace(model, torch.zeros(2, 4))
    trouble = ProofError("it differs") if rank == 1 else None
    with patch.object(sys.modules["espalier.graph.cut"], "prove_surgery", side_effect=trouble, return_value="float64"):
        try:
            return es.cut_(model, graph, plan(0, 1))
        finally:
            assert model[0].out_features == 8 and not hasattr(model, "espalier_surgery")


def one_is_wrapped(rank: int) -> Any:
    model: nn.Module = network()
    graph = es.trace(model, torch.zeros(2, 4))
    return es.cut(DataParallel(model) if rank == 1 else model, graph, plan(0, 1))


def a_plan_that_does_not_fit(rank: int) -> Any:
    model = network()
    return es.cut(model, es.trace(model, torch.zeros(2, 4)), plan(0, 99) if rank == 0 else plan(0, 1))


def a_plan_damaged_on_the_way(rank: int) -> Any:
    model = network()
    graph = es.trace(model, torch.zeros(2, 4))
    heard = ranks.broadcast

    def damaged(text: str) -> str:
        return heard(text).replace("[0, 1]", "[0, 2]") if rank == 1 else heard(text)

    with patch.object(ranks, "broadcast", damaged):
        return es.cut(model, graph, plan(0, 1))


CASES: list[Callable[[int], Any]] = [
    different_plans,
    different_networks,
    a_model_changed_since,
    one_proof_fails,
    one_is_wrapped,
    a_plan_that_does_not_fit,
    a_plan_damaged_on_the_way,
]


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    said: dict[str, Any] = {}
    with group(rank, WORLD, folder):
        for case in CASES:
            try:
                said[case.__name__] = case(rank)
            except EspalierError as error:
                said[case.__name__] = f"{type(error).__name__}: {error}"
        everyone = torch.ones(1)
        distributed.all_reduce(everyone)  # no rank is a collective behind
        said["everyone"] = everyone.item()
    (folder / f"{rank}.json").write_text(json.dumps(said))


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank of a group said of every case."""
    folder = tmp_path_factory.mktemp("ranks")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(rank, folder)) for rank in range(WORLD)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE_SECONDS)
    waiting = [process for process in processes if process.is_alive()]
    for process in waiting:
        process.kill()
    assert not waiting, "a rank was left waiting"
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(WORLD)]


@pytest.mark.nightly  # a long run loses the process that runs these two; alone they pass
def test_rank_0s_plan_is_cut_everywhere(said: list[dict[str, Any]]) -> None:
    model = network()
    alone: Any = es.cut(model, es.trace(model, torch.zeros(2, 4)), plan(0, 1, 2))
    expected = [json.loads(json.dumps(alone.espalier_surgery.to_data())), "float64", alone[0].weight.tolist()]
    for one in said:
        assert one["different_plans"] == [expected, [expected[0], expected[2]]]
        assert one["everyone"] == WORLD


@pytest.mark.nightly  # a long run loses the process that runs these two; alone they pass
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
