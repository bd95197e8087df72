"""The step that mends a cut network without training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Step

Recovery = Literal["batch_norm", "least_squares"]


class Recover(Step):
    """Mend a cut network from a few batches of the training split, without gradients."""

    kind: Literal["recover"] = "recover"
    how: tuple[Recovery, ...] = ("least_squares", "batch_norm")
    """in this order: refit the weights that read what was cut, so that survivors do the work of all; take the batch
    norms' statistics anew"""
    batches: int = Field(default=16, ge=1)
    """of the training split, in evaluation's form"""
