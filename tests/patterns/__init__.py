"""A catalogue of small networks, one common idea in one common writing each."""

from __future__ import annotations

from . import (
    attention,
    attention_positions,
    convolutions,
    families,
    gates,
    graphs,
    joins,
    norms,
    packed,
    pythons,
    recurrent,
    reductions,
    sequences,
    spectra,
    states,
    structure,
    vision,
    weights,
)
from .base import Pattern

PATTERNS: list[Pattern] = [
    *convolutions.PATTERNS,
    *structure.PATTERNS,
    *joins.PATTERNS,
    *norms.PATTERNS,
    *recurrent.PATTERNS,
    *packed.PATTERNS,
    *attention.PATTERNS,
    *attention_positions.PATTERNS,
    *gates.PATTERNS,
    *reductions.PATTERNS,
    *graphs.PATTERNS,
    *weights.PATTERNS,
    *states.PATTERNS,
    *spectra.PATTERNS,
    *sequences.PATTERNS,
    *families.PATTERNS,
    *pythons.PATTERNS,
    *vision.PATTERNS,
]
BY_NAME = {pattern.name: pattern for pattern in PATTERNS}
