"""A recipe: the steps, and what they are done to."""

from __future__ import annotations

import hashlib
from typing import Literal, Self

from pydantic import Field, model_validator

from .steps import AnyStep, Measure, Prune, Recover, Save
from .steps.base import Record

_SETTLE = ("quantize", "binarize")  # after these weights are what they are
_WRITE = ("save", "encode", "export")  # what the network has become, and no more


class Recipe(Record):
    """What to do to a network, as plain data: the same in Python, TOML and YAML.

    >>> from espalier.recipes import Finetune, Prune, Recipe
    >>> recipe = Recipe(steps=(Prune(macs=0.5), Finetune(epochs=4)))
    >>> Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    True
    """

    steps: tuple[AnyStep, ...]
    """in order; a recipe that does not save or measure does both at its end"""
    model: str = ""
    """timm:, torchvision:, transformers: or espalier: name, or path/to/file.py:function; Python may give the module"""
    weights: str = ""
    """file with the trained weights"""
    pretrained: bool = False
    """download the published weights of a timm or torchvision model"""
    data: str = ""
    """digits, parquet:PATH, imagefolder:PATH, ...; Python may give the task"""
    image_size: int | None = Field(default=None, ge=1)
    """height and width to scale images to"""
    batch_size: int = Field(default=64, ge=2, le=2**31 - 1)
    """images a training step"""
    mixup: float = Field(default=0.0, ge=0)
    """of training images: parameter of the Beta distribution that mixes pairs of them; 0 mixes none"""
    cutmix: float = Field(default=0.0, ge=0)
    """of training images: parameter of the Beta distribution of the patches that they exchange; 0 exchanges none"""
    loss: Literal["own", "squared_hinge"] = "own"
    """what is minimised: the task's own loss, or max(0, 1 - t score)^2, as networks of binary weights are trained"""
    seed: int = Field(default=0, ge=0)
    """of everything random"""
    engine: Literal["auto", "ddp", "fsdp"] = "auto"
    """where it runs under torchrun: whole networks in every process (ddp, and auto), or shards of them (fsdp)"""
    checkpoint_seconds: float = Field(default=60.0, ge=0)
    """work that a crash may cost; training writes a checkpoint this often, and one after each stage"""

    @model_validator(mode="after")
    def _ends_well(self) -> Self:
        if not self.steps:
            raise ValueError("a recipe has at least one step")
        measured = [i for i, step in enumerate(self.steps) if isinstance(step, Measure)]
        if len(measured) > 1:
            raise ValueError("measure is there twice: the test split is read once in a run, at its end")
        if measured and any(step.kind not in _WRITE for step in self.steps[measured[0] + 1 :]):
            raise ValueError("measure comes before the end: nothing that changes the network may follow it")
        settled = next((i for i, step in enumerate(self.steps) if step.kind in _SETTLE), len(self.steps))
        moving = next((step.kind for step in self.steps[settled + 1 :] if step.kind not in ("measure", *_WRITE)), None)
        if moving is not None:
            raise ValueError(f"{moving} follows {self.steps[settled].kind}, whose weights nothing may change after it")
        if isinstance(self.steps[0], Recover):
            raise ValueError("recover comes first: it mends what prune has cut")
        return self

    def whole(self) -> Recipe:
        """Return the recipe with the save and the measure that it leaves out."""
        steps = self.steps
        if not any(isinstance(step, Save) for step in steps):
            place = next((i for i, step in enumerate(steps) if isinstance(step, Measure)), len(steps))
            steps = (*steps[:place], Save(), *steps[place:])
        if not any(isinstance(step, Measure) for step in steps):
            steps = (*steps, self._measure())
        return self.model_copy(update={"steps": steps})

    def _measure(self) -> Measure:
        """Return the measure of a recipe that has none: under the conditions of its budget where that is a latency."""
        timed = [step for step in self.steps if isinstance(step, Prune) and step.limits_latency]
        if not timed:
            return Measure()
        return Measure(backend=timed[-1].backend, threads=timed[-1].threads or 1, batch=timed[-1].latency_batch)

    def key(self) -> str:
        """Return a hash of everything in it: equal recipes have equal keys."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]
