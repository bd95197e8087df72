"""A catalogue of small networks, one common idea in one common writing each."""

from __future__ import annotations

from . import attention, attention_positions, convolutions, gates, joins, norms, pythons, recurrent, structure, weights
from .base import Pattern

PATTERNS: list[Pattern] = [
    *convolutions.PATTERNS,
    *structure.PATTERNS,
    *joins.PATTERNS,
    *norms.PATTERNS,
    *recurrent.PATTERNS,
    *attention.PATTERNS,
    *attention_positions.PATTERNS,
    *gates.PATTERNS,
    *weights.PATTERNS,
    *pythons.PATTERNS,
]
BY_NAME = {pattern.name: pattern for pattern in PATTERNS}
