"""Randomness that a resumed run repeats: a seed for each stage, and the generators' states in each checkpoint."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

_OF_RANK = "rank-"  # begins the names of what a checkpoint keeps for one of several ranks; rank 0's have no prefix


def derived(seed: int, *names: object) -> int:
    """Return a seed for what the names say: the same for the same names, unrelated for others."""
    text = json.dumps([seed, *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def seed_all(seed: int) -> None:
    """Seed every generator that a network or its data may draw from: PyTorch's, NumPy's and Python's."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def states() -> dict[str, Tensor]:
    """Return the generators' states as tensors of bytes or integers."""
    kind, words, *rest = random.getstate()
    numpy = np.random.get_state(legacy=False)
    found = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor([kind, *words], dtype=torch.int64),
        "numpy": torch.tensor([*numpy["state"]["key"].tolist(), numpy["state"]["pos"]], dtype=torch.int64),
    }
    if torch.cuda.is_available():
        found |= {f"cuda{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return found


def restore(found: Mapping[str, Tensor]) -> None:
    """Bring the generators to the states that ``states`` returned."""
    torch.set_rng_state(found["torch"])
    kind, *words = found["python"].tolist()
    random.setstate((kind, tuple(words), None))
    *key, position = found["numpy"].tolist()
    state = {"key": np.array(key, dtype=np.uint32), "pos": position}
    np.random.set_state({"bit_generator": "MT19937", "state": state, "has_gauss": 0, "gauss": 0.0})
    devices = [found[name] for name in sorted(found) if name.startswith("cuda")]
    if devices and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(devices)


def of_rank(extra: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    """Return what a checkpoint keeps for a rank: what it keeps for all, with the rank's own in place of rank 0's."""
    shared = {name: value for name, value in extra.items() if not name.startswith(_OF_RANK)}
    prefix = f"{_OF_RANK}{rank}/"
    return {**shared, **{k.removeprefix(prefix): v for k, v in extra.items() if k.startswith(prefix)}}


def by_rank(each: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return what every rank keeps under names that a checkpoint holds together."""
    first, *others = each
    named = {f"{_OF_RANK}{rank}/{k}": v for rank, own in enumerate(others, 1) for k, v in own.items()}
    return {**first, **named}
