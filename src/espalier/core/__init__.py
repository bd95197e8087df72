"""The nouns of the house: plain data, standard library only."""

from .budget import Budget, Cost
from .errors import (
    BudgetError,
    CutError,
    EspalierError,
    EspalierWarning,
    FileError,
    GridError,
    KindError,
    MaskError,
    ModelError,
    PlanError,
    ProofError,
    QuantizationError,
    SharingError,
    UnknownNameError,
    cause,
)
from .plan import Plan
from .structure import Frozen, Group, Role, Slot, Tie
from .surgery import NOT_PROVED, PROOFS, SetAttribute, Slice, Surgery

__all__ = [
    "NOT_PROVED",
    "PROOFS",
    "Budget",
    "BudgetError",
    "Cost",
    "CutError",
    "EspalierError",
    "EspalierWarning",
    "FileError",
    "Frozen",
    "GridError",
    "Group",
    "KindError",
    "MaskError",
    "ModelError",
    "Plan",
    "PlanError",
    "ProofError",
    "QuantizationError",
    "Role",
    "SetAttribute",
    "SharingError",
    "Slice",
    "Slot",
    "Surgery",
    "Tie",
    "UnknownNameError",
    "cause",
]
