"""What a study found, by its kind."""

from __future__ import annotations

from ..core.findings import Findings
from . import comparison
from .run import Outcome
from .study import Heuristics


def findings(outcome: Outcome) -> Findings:
    """Return what a study found."""
    assert isinstance(outcome.study, Heuristics)
    return comparison.findings(outcome)
