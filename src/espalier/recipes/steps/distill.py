"""The step that trains a cut network on what its teacher says."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Step
from .training import Training


class Distill(Training, Step):
    """Train the cut network on the answers of the dense one, and on the labels.

    Costs: a forward pass of the teacher a batch, about a third on top of a dense network's own training.
    """

    kind: Literal["distill"] = "distill"
    temperature: float = Field(default=4.0, gt=0)
    """both networks' logits are divided by it; small students prefer 2.5 to 4"""
    weight: float = Field(default=0.7, ge=0, le=1)
    """share of the teacher's term in the loss; the labels have the rest"""
