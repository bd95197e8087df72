"""What a study found, by its kind."""

from __future__ import annotations

from collections.abc import Callable

from ..core.findings import Findings
from . import comparison, scans
from .lottery import found as lottery
from .run import Outcome
from .triage import found as triage

FINDINGS: dict[str, Callable[[Outcome], Findings]] = {
    "heuristics": comparison.findings,
    "triage": triage.findings,
    "sensitivity": scans.findings,
    "lottery": lottery.findings,
}


def findings(outcome: Outcome) -> Findings:
    """Return what a study found."""
    return FINDINGS[outcome.study.kind](outcome)
