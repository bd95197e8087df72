"""Reverse: any criterion turned upside down, the anti-heuristic of a study."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, ParamSpec

from .signals.slices import Scores

P = ParamSpec("P")


@dataclass(frozen=True)
class Reversed(Generic[P]):
    """A criterion whose ranking is that of ``criterion`` backwards; takes the same arguments and can be pickled."""

    criterion: Callable[P, Scores]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Scores:
        """Return the criterion's scores, negated."""
        return {name: -scores for name, scores in self.criterion(*args, **kwargs).items()}


def reverse(criterion: Callable[P, Scores]) -> Reversed[P]:
    """Return a criterion that scores ``-criterion``: what was worth most is worth least.

        score[u] = - criterion[u]

    Source: the anti-heuristics that a fair study of criteria includes; our own wrapper.

    Args:
        criterion: any criterion; the result takes its options too: ``reverse(magnitude)(model, graph, norm=1)``.
    """
    return Reversed(criterion)
