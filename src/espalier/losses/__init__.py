"""Losses that a training loop adds to the task's own: distillation from a teacher, and the rate of weights.

An objective is a frozen dataclass of hyperparameters; ``attached`` makes it a loss term for a teacher and a student.
"""

from __future__ import annotations

from .attention_transfer import AttentionTransfer
from .ensemble import Ensemble
from .errors import DistillationError
from .feature_hints import FeatureHints
from .hinton import Hinton
from .logit_regression import LogitRegression
from .objective import Objective, Term, Together
from .rate import rate

__all__ = [
    "AttentionTransfer",
    "DistillationError",
    "Ensemble",
    "FeatureHints",
    "Hinton",
    "LogitRegression",
    "Objective",
    "Term",
    "Together",
    "rate",
]
