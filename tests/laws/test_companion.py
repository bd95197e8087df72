"""A method beside the loop: where it cannot work, it says so before it has done anything."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from espalier.recipes.training.companion import Companion
from espalier.recipes.training.optimizers import TrainingError


class Watcher:
    """A method that must not be started."""

    def start(self, *_: Any) -> None:
        raise AssertionError("started")


def test_a_method_refuses_shards_by_name_and_says_what_to_do() -> None:
    lesson: Any = SimpleNamespace(method=Watcher(), engine=SimpleNamespace(shards=True), seed=0)
    learner: Any = SimpleNamespace(model=nn.Linear(1, 1))
    companion = Companion(lesson, learner, lambda epochs: None)
    with pytest.raises(TrainingError, match="Watcher watches whole weights .* FSDP keeps shards .* engine = 'ddp'"):
        companion.start({})
    companion.close()  # nothing was opened
