"""What a user may ask of a compression; plain data, so that the command line costs no import of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..core import EspalierError


class SettingsError(EspalierError):
    """A setting is out of range."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """One stretch of training: learning rate warmed up over the first tenth, then a cosine down to zero."""

    epochs: int = 10
    """passes over the training split"""
    lr: float = 0.05
    """highest learning rate"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """stochastic gradient descent with momentum 0.9 (Nesterov), or AdamW"""
    weight_decay: float = 5e-4
    """decay of weights with two or more dimensions"""
    label_smoothing: float = 0.0
    """share of the target spread over all classes, for tasks whose loss is cross-entropy"""
    seed: int = 0
    """of shuffling and dropout"""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to compress a model: what the result may cost, how units are chosen, how accuracy is recovered."""

    macs: int | float | None = None
    """multiply-accumulates the result may cost: a ratio such as 0.5, or an absolute whole number"""
    params: int | float | None = None
    """parameters the result may have, ratio or absolute"""
    activations: int | float | None = None
    """peak live activations at batch 1, ratio or absolute"""
    round_to: int = 1
    """keep a multiple of this many units in each group"""
    criterion: str = "taylor"
    """how units are scored: taylor (needs one backward pass a batch), magnitude, bn_scale,
    geometric_median, lamp or random"""
    strategy: Literal["uniform", "global", "isomorphic"] = "isomorphic"
    """every group alike, all groups compared, or groups compared with those of the same shape"""
    keep: tuple[str, ...] = ()
    """names of layers that stay whole; * and ? match; may be given several times"""
    rounds: int = 1
    """cuts on the way to the budget, with fine-tuning after each"""
    score_batches: int = 8
    """training batches that the taylor criterion reads"""
    train_epochs: int = 0
    """epochs of training before the first cut, for a network that is not trained yet"""
    train_lr: float = 0.1
    """highest learning rate of that training"""
    round_epochs: int = 1
    """epochs of fine-tuning after each cut but the last"""
    epochs: int = 10
    """epochs of fine-tuning after the last cut"""
    batch_size: int = 64
    """images a training step"""
    lr: float = 0.02
    """highest learning rate of fine-tuning"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """what trains"""
    label_smoothing: float = 0.0
    """share of the target spread over all classes"""
    seed: int = 0
    """of everything random"""

    def __post_init__(self) -> None:
        """Check ranges; the budget and the names are checked where they are used."""
        least = {"round_to": 1, "rounds": 1, "score_batches": 1, "train_epochs": 0, "round_epochs": 0, "epochs": 0}
        for name, smallest in {**least, "batch_size": 2, "seed": 0}.items():
            if getattr(self, name) < smallest:
                raise SettingsError(f"{name}={getattr(self, name)}: must be at least {smallest}")
        for name in ("lr", "train_lr"):
            if not 0 < getattr(self, name) < float("inf"):
                raise SettingsError(f"{name}={getattr(self, name)}: must be above 0")
        if not 0 <= self.label_smoothing < 1:
            raise SettingsError(f"label_smoothing={self.label_smoothing}: must be in [0, 1)")

    def training(self, epochs: int, lr: float | None = None) -> Training:
        """Return the training settings of one stretch."""
        return Training(
            epochs=epochs,
            lr=self.lr if lr is None else lr,
            optimizer=self.optimizer,
            label_smoothing=self.label_smoothing,
            seed=self.seed,
        )
