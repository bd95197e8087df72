"""What a study of blocks is."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from ...recipes.steps import Training
from ..study import Study, distinct

Init = Literal["random", "mean", "parent"]
Scope = Literal["layer", "network"]
Loss = Literal["ce", "kd"]


class Triage(Study):
    """Blocks x initialisations x what is trained x losses x seeds x tasks: how much is each block worth?

    Each block in turn is replaced by one layer with the same channels and sizes. Criticality is the accuracy that is
    lost against the parent. All children train for the same epochs.
    """

    kind: Literal["triage"] = "triage"
    blocks: dict[str, tuple[str, ...]] = {}
    """{task: names of its blocks}, such as "layer1" or "features[0:6]"; all that are found where it is not given"""
    inits: tuple[Init, ...] = Field(default=("random", "mean", "parent"), min_length=1)
    """how the layer begins: at random, as the mean of the block's kernels, or fitted to the block"""
    scopes: tuple[Scope, ...] = Field(default=("layer", "network"), min_length=1)
    """what is trained: the layer alone, or the whole network"""
    losses: tuple[Loss, ...] = Field(default=("ce", "kd"), min_length=1)
    """cross-entropy, or the parent's softened answers"""
    kernel: Literal["three", "field"] = "three"
    """of the layer: 3, or 2 n + 1, the reach of the block's n convolutions"""
    temperature: float = Field(default=4.0, gt=0)
    """of the parent's answers"""
    kd_weight: float = Field(default=1.0, gt=0, le=1)
    """share of the parent's answers in that loss; at 1 the labels have none: only then is a ceiling at the parent's
    accuracy to be expected"""
    fit_batches: int = Field(default=8, ge=1)
    """training batches that the fit to the block reads"""
    training: Training = Training(epochs=5, lr=0.05)
    """of every child"""

    _distinct = field_validator("inits", "scopes", "losses")(distinct)

    @field_validator("blocks")
    @classmethod
    def _of_tasks(cls, blocks: dict[str, Any], info: Any) -> dict[str, Any]:
        names = [subject.name for subject in info.data.get("tasks", ())]
        unknown = [name for name in blocks if name not in names]
        if unknown and names:
            raise ValueError(f"no task is called {unknown[0]!r}; known: {', '.join(names)}")
        return blocks
