"""k-means of numbers: Lloyd's iterations on a histogram, exact for its bins and sorted, so that a step costs k log n.

    bins x_1 < x_2 < ... with counts n and sums s        prefix sums of n and s give a range's mean at once
    boundary  b_j = (c_j + c_j+1) / 2
    centroid  c_j <- sum of s / sum of n over the bins between b_j-1 and b_j       until no boundary passes a bin

Where it begins, Deep Compression's three ways (section 3.2), of which it finds ``linear`` to be the best for networks:
large weights are few and matter.

    linear      evenly between the smallest and the largest number
    density     at evenly spaced shares of the numbers: the quantiles (i + 1/2) / k
    kmeans++    one at random, then each with a chance that grows as the squared distance to the nearest so far

*Source*: Lloyd, IEEE Transactions on Information Theory 28(2), 1982; Han, Mao and Dally, Deep Compression, ICLR 2016,
arXiv:1510.00149, section 3; Arthur and Vassilvitskii, SODA 2007, for kmeans++.
*Differs*: (1) up to 65,536 distinct ones of 262,144 numbers are their own bins, more are put in 65,536 bins of one
width; the last
assignment and the last means are those of the numbers themselves; (2) a centroid that nobody is nearest to moves to the
bin with the largest error (as scikit-learn's does), where the paper leaves it; (3) kmeans++ in place of Forgy's start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Start = Literal["linear", "density", "kmeans++"]

_BINS = 1 << 16
_SORTED = 1 << 18  # numbers that are looked through for distinct ones; sorting more takes longer than all the rest
_MOST_STEPS = 1000


@dataclass(frozen=True, eq=False)
class Clustered:
    """Numbers in clusters.

    Attributes:
        centroids: (k,) float64, ascending; every one has a member.
        symbols: int32, of the numbers' shape: which centroid each belongs to.
        error: sum of squared distances.
    """

    centroids: np.ndarray
    symbols: np.ndarray
    error: float


def lloyd(
    numbers: np.ndarray, clusters: int, *, start: Start = "linear", generator: np.random.Generator | None = None
) -> Clustered:
    """Return numbers in at most so many clusters.

    Args:
        numbers: (n,) finite floats.
        clusters: how many at most; fewer where there are fewer distinct numbers.
        start: where the centroids begin.
        generator: of kmeans++; seeded with 0 when None.
    """
    if not len(numbers):
        return Clustered(np.zeros(0), np.zeros(0, np.int32), 0.0)
    wide = numbers.astype(np.float64)
    bins = _Bins.of(wide)
    if len(bins.places) <= clusters:
        return _assigned(wide, bins.places)
    generator = generator or np.random.default_rng(0)
    begin = {"linear": _linear, "density": _density, "kmeans++": _plusplus}[start]
    return _assigned(wide, _iterated(bins, np.sort(begin(bins, clusters, generator))))


@dataclass(frozen=True, eq=False)
class _Bins:
    """Distinct places, ascending, with counts and their prefix sums (a zero first)."""

    places: np.ndarray
    counts: np.ndarray
    count_before: np.ndarray
    sum_before: np.ndarray

    @classmethod
    def of(cls, numbers: np.ndarray) -> _Bins:
        if len(numbers) <= _SORTED:
            places, counts = np.unique(numbers, return_counts=True)
        else:
            places, counts = numbers, np.ones(1, np.int64)
        if len(places) > _BINS:
            low, high = places.min(), places.max()
            own = np.minimum((places - low) * (_BINS / max(high - low, np.finfo(np.float64).tiny)), _BINS - 1)
            own = own.astype(np.int64)
            sums = np.bincount(own, weights=places * counts, minlength=_BINS)
            counts = np.bincount(own, weights=np.broadcast_to(counts, places.shape), minlength=_BINS).astype(np.int64)
            places, counts = sums[counts > 0] / counts[counts > 0], counts[counts > 0]
        before = np.concatenate([[0], np.cumsum(counts)])
        return cls(places, counts, before, np.concatenate([[0.0], np.cumsum(places * counts)]))


def _iterated(bins: _Bins, centroids: np.ndarray) -> np.ndarray:
    """Return the centroids when no boundary passes a bin any more."""
    edges = np.full(len(centroids) + 1, -1)
    for _ in range(_MOST_STEPS):
        inner = np.searchsorted(bins.places, _boundaries(centroids), side="right")
        new = np.concatenate([[0], inner, [len(bins.places)]])
        if np.array_equal(new, edges):
            break
        edges = new
        counts = bins.count_before[edges[1:]] - bins.count_before[edges[:-1]]
        sums = bins.sum_before[edges[1:]] - bins.sum_before[edges[:-1]]
        means = np.divide(sums, counts, out=centroids.copy(), where=counts > 0)
        centroids = np.sort(_moved(bins, means, edges, counts == 0)) if (counts == 0).any() else means
    return centroids


def _moved(bins: _Bins, centroids: np.ndarray, edges: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """Return the centroids with the empty ones moved to the bins of the largest errors."""
    own = np.repeat(np.arange(len(centroids)), np.diff(edges))
    errors = bins.counts * (bins.places - centroids[own]) ** 2
    moved = centroids.copy()
    moved[empty] = bins.places[np.argsort(-errors, kind="stable")[: int(empty.sum())]]
    return moved


def _assigned(numbers: np.ndarray, centroids: np.ndarray) -> Clustered:
    """Return the numbers with the nearest of the centroids, which become their means."""
    nearest = np.searchsorted(_boundaries(centroids), numbers, side="left")
    counts = np.bincount(nearest, minlength=len(centroids))
    symbols = (np.cumsum(counts > 0) - 1)[nearest]
    means = np.bincount(symbols, weights=numbers) / counts[counts > 0]
    error = float(((numbers - means[symbols]) ** 2).sum())
    return Clustered(means, symbols.astype(np.int32), error)


def _boundaries(centroids: np.ndarray) -> np.ndarray:
    return (centroids[:-1] + centroids[1:]) / 2


def _linear(bins: _Bins, clusters: int, _: np.random.Generator) -> np.ndarray:
    return np.linspace(bins.places[0], bins.places[-1], clusters)


def _density(bins: _Bins, clusters: int, _: np.random.Generator) -> np.ndarray:
    shares = (np.arange(clusters) + 0.5) / clusters * bins.count_before[-1]
    return bins.places[np.searchsorted(bins.count_before[1:], shares, side="right")]


def _plusplus(bins: _Bins, clusters: int, generator: np.random.Generator) -> np.ndarray:
    chances = bins.counts / bins.counts.sum()
    found = [bins.places[generator.choice(len(bins.places), p=chances)]]
    nearest = np.full(len(bins.places), np.inf)
    while len(found) < clusters:  # there are more places than clusters, so that some chance is left
        nearest = np.minimum(nearest, (bins.places - found[-1]) ** 2)
        weights = bins.counts * nearest
        found.append(bins.places[generator.choice(len(bins.places), p=weights / weights.sum())])
    return np.array(found)
