"""The step that trains a network before anything is cut."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Step
from .training import Training


class Train(Training, Step):
    """Train the network; what comes out is the dense network that later steps are compared with."""

    kind: Literal["train"] = "train"
    lr: float = Field(default=0.1, gt=0)
    """highest learning rate"""
