"""How alike heuristics rank the same units: identical rankings make their variance small for no merit of an arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

_PAIRS = 4_000_000  # compared at a time


def kendall(scores: Sequence[Mapping[str, Sequence[float]]]) -> NDArray[np.float64]:
    """Return Kendall's tau between every two heuristics, over the pairs of units that share a group.

        tau = (concordant - discordant) / (n (n - 1) / 2),   sums over groups above and below

    Units of different groups are not compared, as a cut with fixed widths never does; ties count as neither.

    *Source*: Kendall, A new measure of rank correlation, Biometrika 30, 1938.

    Args:
        scores: ``{group: one number a unit}`` of each heuristic; the same groups and units in all.

    Returns:
        (heuristics, heuristics), in [-1, 1]; NaN where no group has two units.
    """
    agreement = np.zeros((len(scores), len(scores)))
    pairs = 0
    for group in scores[0] if scores else ():
        values = np.array([one[group] for one in scores], dtype=np.float64)
        first, second = np.triu_indices(values.shape[1], 1)
        pairs += len(first)
        for begin in range(0, len(first), _PAIRS):
            part = slice(begin, begin + _PAIRS)
            signs = np.sign(values[:, first[part]] - values[:, second[part]])
            agreement += signs @ signs.T
    return agreement / pairs if pairs else np.full_like(agreement, np.nan)
