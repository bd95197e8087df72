"""What every rank of ``test_ranks`` does, as a program: ``ranks_job.py FOLDER RANK``."""

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

import torch
from torch import distributed, nn
from torch.nn.parallel import DataParallel

import espalier as es
from espalier.core import EspalierError, ProofError
from espalier.graph import ranks
from espalier.graph.proof.prove import Proof

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
    with patch.object(
        sys.modules["espalier.graph.cut"], "proof_of", side_effect=trouble, return_value=Proof("float64")
    ):
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
        os._exit(0)  # gloo, as it goes, sometimes ends a process by std::terminate: what is tested is over by then


if __name__ == "__main__":
    work(int(sys.argv[2]), Path(sys.argv[1]))
