"""What every stretch of training takes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Record


class Training(Record):
    """One stretch of training. The learning rate is warmed up and then falls to zero.

    Costs: an epoch is one pass over the training split, forward and backward, and one over the validation split.
    """

    epochs: int = Field(default=10, ge=0)
    """passes over the training split"""
    lr: float = Field(default=0.02, gt=0)
    """highest learning rate"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """stochastic gradient descent with Nesterov momentum, or AdamW"""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """of SGD"""
    weight_decay: float = Field(default=5e-4, ge=0)
    """decay of weights with two or more dimensions"""
    schedule: Literal["cosine", "one_cycle", "constant"] = "cosine"
    """warm-up and then a cosine to zero; one cycle up and down; or one rate after the warm-up"""
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    """share of the steps over which the learning rate rises"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """of the forward pass while training; bfloat16 is faster where the processor has it, evaluation stays float32"""
    channels_last: bool = False
    """keep images with channels last in memory: faster convolutions on most machines"""
    accumulate_steps: int = Field(default=1, ge=1)
    """batches whose gradients are averaged before each step of the optimizer"""
    clip_norm: float | None = Field(default=None, gt=0)
    """gradients are scaled down to this norm where theirs is larger"""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """the result is a moving average of the weights with this decay, such as 0.999"""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """share of the target spread over all classes, for tasks whose loss is cross-entropy"""
