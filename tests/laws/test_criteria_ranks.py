"""Law: ranks that each see a part of every batch score as one process that sees it whole."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from espalier import criteria

from .criteria_job import scores
from .launching import every_rank
from .ranks_job import WORLD


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    """What each rank of a group says."""
    folder = tmp_path_factory.mktemp("ranks")
    every_rank([sys.executable, "-m", "tests.laws.criteria_job", str(folder)])
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.slow
def test_ranks_score_as_one(said: list[dict[str, dict[str, Tensor]]]) -> None:
    whole = scores(slice(None))
    assert set(whole) == criteria.DATA_DRIVEN
    for one in said:
        for criterion, expected in whole.items():
            for name, numbers in expected.items():  # type: ignore[union-attr]
                torch.testing.assert_close(
                    one[criterion][name], numbers, rtol=1e-6, atol=1e-9, msg=f"{criterion} {name}"
                )
