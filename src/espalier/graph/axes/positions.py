"""A dimension as a matrix of units: what can be done to one without knowing the arena."""

from __future__ import annotations

import numpy as np

Dim = np.ndarray  # int32, (positions, columns)


NONE = 0  # the padding unit: always kept


def constant(size: int) -> Dim:
    """Return a dimension without units: batch, space, tokens."""
    return np.empty((size, 0), np.int32)


def merge(*dims: Dim) -> Dim:
    """Flatten dimensions into one (row-major): the Kronecker layout of their columns."""
    result = dims[0]
    for dim in dims[1:]:
        outer, inner = len(result), len(dim)
        if result.shape[1] + dim.shape[1] == 0:
            result = constant(outer * inner)
        else:
            result = np.concatenate([np.repeat(result, inner, axis=0), np.tile(dim, (outer, 1))], axis=1)
    return result


def tidy(ids: np.ndarray) -> Dim:
    """Blank repeated units in a row and drop empty columns."""
    for j in range(1, ids.shape[1]):
        repeated = (ids[:, j : j + 1] == ids[:, :j]).any(axis=1)
        if repeated.any():
            ids[repeated, j] = NONE
    used = ids.any(axis=0)
    return ids if used.all() else ids[:, used]


def drop_shared(a: Dim, b: Dim) -> tuple[Dim, Dim]:
    """Drop the columns that both have."""
    for j in range(a.shape[1]):
        for i in range(b.shape[1]):
            if np.array_equal(a[:, j], b[:, i]):
                return drop_shared(np.delete(a, j, axis=1), np.delete(b, i, axis=1))
    return a, b


def row_classes(column: np.ndarray) -> np.ndarray:
    """Return the first row of each row's unit: equal arrays mean equal partitions."""
    _, first, inverse = np.unique(column, return_index=True, return_inverse=True)
    return first[inverse.reshape(-1)]


def same_sets(a: Dim, b: Dim) -> bool:
    """Whether every row holds the same set of units in both."""
    width = max(a.shape[1], b.shape[1])
    if width == 0:
        return True
    return np.array_equal(_sorted_rows(a, width), _sorted_rows(b, width))


def _sorted_rows(dim: Dim, width: int) -> np.ndarray:
    wide = np.zeros((len(dim), width), np.int32)
    wide[:, : dim.shape[1]] = dim
    return np.sort(wide, axis=1)
