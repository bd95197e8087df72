"""What a study of lottery tickets is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from ...recipes.steps.sparsify import Share
from ..study import Study, Subject

TICKET, FINETUNED, FRESH, RANDOM_MASK = "ticket", "fine-tuned", "re-initialised", "random mask"
ARMS = (TICKET, FINETUNED, FRESH, RANDOM_MASK)  # that every study has


class Lottery(Study):
    """Rounds x arms x seeds x tasks: does a sparse network train as well as the dense one, and what makes it?

    Each round hides an equal share of the survivors, those of the smallest magnitude after training, and trains again:
    from the dense network's beginning (the ticket), which the next round goes on from, and beside it, with as many
    weights and epochs, the trained weights fine-tuned, the same mask with a fresh beginning, and a random mask.
    """

    kind: Literal["lottery"] = "lottery"
    sparsity: Share = 0.95
    """share of the weights that are gone after the last round"""
    layers: dict[str, Share] = {}
    """{pattern: share} of single layers; the paper's output layers lose half as many a round"""
    scope: Literal["layer", "global"] = "layer"
    """whether ``sparsity`` is the share of every layer, or of all together"""
    keep: tuple[str, ...] = ()
    """names of layers that stay whole"""
    rounds: int = Field(default=8, ge=1)
    """of training and masking"""
    finetune_lr_ratio: float = Field(default=0.1, gt=0, le=1)
    """of the training's learning rate, for the arm that is fine-tuned"""

    @field_validator("tasks")
    @classmethod
    def _begin_here(cls, tasks: tuple[Subject, ...]) -> tuple[Subject, ...]:
        given = [subject.name for subject in tasks if subject.weights]
        if given:
            raise ValueError(
                f"{given[0]}: a ticket is reset to where training began, which weights of a file do not say"
            )
        idle = [subject.name for subject in tasks if not subject.train.epochs]
        if idle:
            raise ValueError(
                f"{idle[0]}: train has no epochs, and masks are chosen by what training made of the weights"
            )
        return tasks
