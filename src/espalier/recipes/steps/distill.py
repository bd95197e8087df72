"""The step that trains a cut network on what its teacher says."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from .base import Step
from .training import Training


class Distill(Training, Step):
    """Train the cut network on the answers of the dense one, and on the labels.

    Costs: a forward pass of each teacher a batch, about a third on top of a dense network's own training.
    """

    kind: Literal["distill"] = "distill"
    answers: Literal["hinton", "logits", "none"] = "hinton"
    """what the teacher's answers are for: softened probabilities, the logits themselves, or nothing"""
    temperature: float = Field(default=4.0, gt=0)
    """both networks' logits are divided by it before they become probabilities; small students prefer 2.5 to 4"""
    weight: float = Field(default=0.7, ge=0, le=1)
    """share of the answers' term in the loss; the labels have the rest"""
    features: Literal["none", "hints", "attention"] = "none"
    """what layers inside are compared by: their activations, or where in the image they are large"""
    adapter: Literal["index", "learned"] = "index"
    """how hints meet a narrower student: at the channels that it kept, or through a map that is trained with it and
    predicts all of the teacher's"""
    feature_weight: float | None = Field(default=None, ge=0)
    """of that term; 10 for hints and 30 for attention when not given"""
    teachers: tuple[str, ...] = ()
    """weight files of further teachers of the dense network's architecture; all teachers count the same"""

    @model_validator(mode="after")
    def _has_a_term(self) -> Self:
        if self.answers == "none" and self.features == "none":
            raise ValueError("nothing is distilled: answers and features are both 'none'")
        if self.adapter == "learned" and self.features != "hints":
            raise ValueError("adapter = 'learned' maps hints: give features = 'hints' with it")
        return self
