"""What every rank of ``test_criteria_ranks`` does, as a program: ``criteria_job.py FOLDER RANK``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from espalier import criteria
from tests.laws.ranks_job import WORLD, group
from tests.reference.criteria_networks import batches, loss, network

KIND = "small"


def scores(part: slice) -> dict[str, dict[str, Tensor] | str]:
    """Return what every data-driven criterion says of a part of each batch."""
    found: dict[str, dict[str, Tensor] | str] = {}
    for name in sorted(criteria.DATA_DRIVEN):
        model, graph = network(KIND)
        data = [(x[part], y[part]) for x, y in batches(KIND, (4, 4))]
        found[name] = criteria.named(name)(model, graph, batches=data, loss=loss)
    return found


def main(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    with group(rank, WORLD, folder):
        torch.save(scores(slice(2 * rank, 2 * rank + 2)), folder / f"{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
