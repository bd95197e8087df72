"""The step that mends a cut network without training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Step

Recovery = Literal["least_squares", "batch_norm", "statistics"]


class Recover(Step):
    """Mend a cut network from a few batches of the training split, without gradients."""

    kind: Literal["recover"] = "recover"
    how: tuple[Recovery, ...] = ("least_squares",)
    """least_squares refits the weights behind a cut so that survivors do the work of all, and needs no batch_norm after
    it; batch_norm takes the running statistics anew, which costs next to nothing; statistics corrects the scale of what
    a layer norm or RMS norm reads"""
    batches: int = Field(default=16, ge=2)
    """of the training split; least_squares holds all of them in memory with their activations"""
