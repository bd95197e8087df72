"""The common settings, from which a recipe is built: what ``espalier compress`` takes as options."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import Field, ValidationError, field_validator

from .files import mistakes
from .recipe import Recipe
from .steps import AnyStep, Distill, Finetune, Measure, Prune, Train, Training
from .steps.base import MOST_THREADS, Backend, RecipeError, Record
from .steps.prune import in_range, known_criterion, known_method
from .steps.recover import Recovery

LIMITS = ("macs", "params", "activations", "latency_ms", "size_mb", "max_drop")  # settings, of which one must be given


class SettingsError(RecipeError):
    """A setting is out of range; the message lists all that are."""


class Settings(Record):
    """How to compress a model: what the result may cost, how units are chosen, how accuracy is recovered.

    >>> [step.kind for step in Settings(macs=0.5, train_epochs=2).recipe().steps]
    ['train', 'prune', 'finetune']
    """

    macs: int | float | None = None
    """multiply-accumulates the result may cost: a ratio such as 0.5, or an absolute whole number"""
    params: int | float | None = None
    """parameters the result may have, ratio or absolute"""
    activations: int | float | None = None
    """peak live activations at batch 1, ratio or absolute"""
    latency_ms: float | None = Field(default=None, gt=0)
    """milliseconds that a forward pass of the result may take on the backend"""
    size_mb: float | None = Field(default=None, gt=0)
    """millions of bytes of the result's file, model.safetensors, with all that is in it"""
    max_drop: float | None = Field(default=None, ge=0, le=100)
    """points of the metric that may be lost on validation; alone, the smallest network inside it is searched for"""
    backend: Backend = "eager"
    """what runs the network when it is timed"""
    threads: int | None = Field(default=None, ge=1, le=MOST_THREADS)
    """of that backend"""
    round_to: int | None = Field(default=None, ge=1)
    """keep a multiple of this many units in each group"""
    method: str | None = None
    """a paper's algorithm that decides while the network is trained, for round_epochs: c2s2,
    group_fisher or soft_knowledge_relocation; without one, units are scored and cut in rounds"""
    options: tuple[str, ...] = ()
    """NAME=VALUE, a hyperparameter of the method"""
    criterion: str = "taylor"
    """how units are scored, by a name in docs/criteria.md: taylor (one backward pass a batch), group_fisher, magnitude,
    bn_scale, lamp, activation_mean, random, ...; "reversed:NAME" turns one upside down"""
    strategy: Literal["uniform", "global", "isomorphic"] = "isomorphic"
    """every group alike, all groups compared, or groups compared with those of the same shape"""
    keep: tuple[str, ...] = ()
    """names of layers that stay whole; * and ? match"""
    recover: tuple[Recovery, ...] = ("least_squares",)
    """what mends the network after each cut, before it is trained: batch_norm takes its running statistics anew;
    least_squares refits the weights behind a cut, which keeps most, and holds its batches in memory with their
    activations; statistics corrects the scale of what a layer norm or RMS norm reads"""
    rounds: int = Field(default=1, ge=1)
    """cuts on the way to a budget, with fine-tuning after each"""
    score_batches: int = Field(default=8, ge=1)
    """training batches that a criterion which needs data reads"""
    train_epochs: int = Field(default=0, ge=0)
    """epochs of training before the first cut, for a network that is not trained yet"""
    train_lr: float = Field(default=0.1, gt=0)
    """highest learning rate of that training"""
    round_epochs: int | None = Field(default=None, ge=0)
    """epochs of fine-tuning after each cut, where there are several (1 when not given) or max_drop searches (4: too few
    end the search early); epochs in which a method works (4)"""
    epochs: int = Field(default=10, ge=0)
    """epochs of fine-tuning after the last cut"""
    batch_size: int = Field(default=64, ge=2, le=2**31 - 1)
    """images a training step"""
    lr: float = Field(default=0.02, gt=0)
    """highest learning rate of fine-tuning"""
    distill: Literal["auto", "yes", "no"] = "auto"
    """fine-tune on the dense network's answers too, which takes a third more time; auto: where max_drop searches"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """what trains"""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """share of the target spread over all classes"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """of the forward pass while training; auto: bfloat16 and channels last where the processor computes in bfloat16,
    which takes half of the time, and float32 elsewhere"""
    channels_last: bool = False
    """keep images with channels last in memory: faster convolutions on most machines"""
    engine: Literal["auto", "ddp", "fsdp"] = "auto"
    """under torchrun: whole networks in every process (ddp, and auto), or shards of them (fsdp)"""
    seed: int = Field(default=0, ge=0)
    """of everything random"""

    _criterion = field_validator("criterion")(known_criterion)
    _amounts = field_validator("macs", "params", "activations")(in_range)
    _method = field_validator("method")(known_method)

    def recipe(self) -> Recipe:
        """Return the recipe: train if asked, prune, distill or fine-tune.

        Raises:
            SettingsError: no budget, or a value out of range.
        """
        if all(getattr(self, name) is None for name in LIMITS):
            raise SettingsError(f"nothing says how small the result should be: give one of {', '.join(LIMITS)}")
        try:
            prune = self._prune()
            steps: list[AnyStep] = [prune]
            if self.train_epochs:
                steps.insert(0, Train.model_validate(self._training(self.train_epochs, self.train_lr)))
            if self.epochs:
                last = Distill if self._distills else Finetune
                steps.append(last.model_validate(self._training(self.epochs, self.lr)))
            if self.latency_ms is None and (self.backend != "eager" or self.threads is not None):
                steps.append(Measure(backend=self.backend, threads=self.threads))
            return Recipe(steps=tuple(steps), batch_size=self.batch_size, seed=self.seed, engine=self.engine)
        except ValidationError as error:
            raise SettingsError("\n".join(mistakes(error))) from error

    def _prune(self) -> Prune:
        same = ("macs", "params", "activations", "latency_ms", "max_drop", "backend", "threads", "round_to")
        same += ("criterion", "strategy", "keep", "recover", "rounds", "score_batches")
        data = {name: getattr(self, name) for name in same}
        if self.size_mb is not None:
            data["size_bytes"] = int(self.size_mb * 1e6)
        if self.method is not None or self.options:
            data |= {"method": self.method, "options": hyperparameters(self.options)}
        if self.method is not None and "recover" not in self.model_fields_set:
            del data["recover"]  # a method's cuts are mended by the training that it works in
        several = self.max_drop is not None or self.method is not None
        epochs = (4 if several else 1) if self.round_epochs is None else self.round_epochs
        if epochs and (self.rounds > 1 or several):
            data |= {"finetune": Training.model_validate(self._training(epochs, self.lr)), "distill": self._distills}
        return Prune.model_validate(data)

    @property
    def _distills(self) -> bool:
        """Whether the dense network teaches; a search has it do so, since what training wins back decides how far."""
        return self.distill == "yes" or (self.distill == "auto" and self.max_drop is not None)

    def _training(self, epochs: int, lr: float) -> dict[str, object]:
        same = ("optimizer", "label_smoothing", "precision", "channels_last")
        chosen = {name: getattr(self, name) for name in same}
        if self.precision == "auto":
            from .training.precision import computes_in_bfloat16  # with torch, which help can do without

            fast = computes_in_bfloat16()
            chosen |= {"precision": "bfloat16" if fast else "float32", "channels_last": self.channels_last or fast}
        return {"epochs": epochs, "lr": lr, **chosen}


def hyperparameters(given: tuple[str, ...]) -> dict[str, object]:
    """Return ``NAME=VALUE`` texts as a dictionary; a value is JSON, or else the text itself.

    >>> hyperparameters(("every_steps=10", "normalise=macs"))
    {'every_steps': 10, 'normalise': 'macs'}

    Raises:
        SettingsError: a text is no pair.
    """
    found: dict[str, object] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise SettingsError(f"options: {text!r} should be NAME=VALUE, such as every_steps=10")
        try:
            found[name.strip()] = json.loads(value)
        except ValueError:
            found[name.strip()] = value
    return found
