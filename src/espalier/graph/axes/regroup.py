"""Regrouping: a reshape merges and splits dimensions where their products meet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .positions import row_classes
from .units import Dim, Units, Why, constant, merge

Block = tuple[list[int], list[int]]


def regroup(units: Units, old: Sequence[Dim], shape: Sequence[int], why: Why) -> list[Dim]:
    """Return the dimensions of a reshape, row-major.

    Raises:
        ValueError: the sizes do not match.
    """
    out: list[Dim] = []
    for sources, targets in blocks([len(d) for d in old], shape):
        parts = [old[i] for i in sources]
        whole = parts[0] if len(parts) == 1 else merge(*parts) if parts else constant(1)
        sizes = tuple(shape[j] for j in targets)
        out.extend([whole] if len(sizes) == 1 else units.split(whole, sizes, why) if sizes else [])
    return out


def blocks(old: Sequence[int], new: Sequence[int]) -> Iterator[Block]:
    """Yield the smallest runs (old indices, new indices) with equal products.

    Raises:
        ValueError: there are none.
    """
    i = j = 0
    while i < len(old) or j < len(new):
        left, right = [], []
        a = b = 1
        if i < len(old):
            left, a, i = [i], old[i], i + 1
        if j < len(new):
            right, b, j = [j], new[j], j + 1
        while a != b or not right or not left:
            if (a < b or not left) and i < len(old):
                left.append(i)
                a, i = a * old[i], i + 1
            elif j < len(new):
                right.append(j)
                b, j = b * new[j], j + 1
            elif i < len(old):
                left.append(i)
                a, i = a * old[i], i + 1
            else:
                break
        if a != b:
            raise ValueError("a view whose sizes do not match")
        yield left, right


def splits(old: Sequence[int], new: Sequence[int], held: Sequence[bool]) -> bool:
    """Whether a reshape takes apart a run in which a dimension is ``held``."""
    return any(
        any(held[i] for i in sources) and sum(new[j] > 1 for j in targets) > 1 for sources, targets in blocks(old, new)
    )


def pairing(old: Sequence[int], new: Sequence[int], held: Sequence[bool]) -> list[list[bytes]]:
    """Return how a reshape parts the positions of the ``held`` dimensions: equal where it couples them alike."""
    units = Units()
    dims = [units.fresh(n) if has else constant(n) for n, has in zip(old, held, strict=True)]
    regroup(units, dims, new, Why("it is reshaped"))
    atoms = [units.resolve(dim) for dim, has in zip(dims, held, strict=True) if has]
    return [sorted(row_classes(column).tobytes() for column in one.T) for one in atoms]
