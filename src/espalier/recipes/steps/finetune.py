"""The step that trains a cut network."""

from __future__ import annotations

from typing import Literal

from .base import Step
from .training import Training


class Finetune(Training, Step):
    """Train the cut network on, with the moments of its optimizer kept across the cuts."""

    kind: Literal["finetune"] = "finetune"
