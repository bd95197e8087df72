"""Random numbers that depend on what they are for, and on nothing that ran before."""

from __future__ import annotations

import random  # what foreign code may draw from
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seeded(*numbers: int) -> torch.Generator:
    """Return random numbers that depend on all of ``numbers`` (none negative) and on nothing else."""
    return torch.Generator().manual_seed(_mixed(*numbers))


@contextmanager
def seeded_globally(*numbers: int) -> Iterator[None]:
    """Seed the random numbers that foreign code takes from torch, numpy and Python; all go on as before afterwards."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    seed = _mixed(*numbers)
    torch.default_generator.manual_seed(seed)  # the CPU's alone: torch.manual_seed would reach every device
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


def _mixed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
