"""Units: the algebra of positions that live and die together.

A dimension of size n is an integer matrix n x k: row p lists the units that must all be kept for position p to be
kept. A product (heads x head_dim) adds columns, a concatenation stacks rows, a permutation indexes rows; k = 0 is a
constant dimension. Union-find acts on units; a unit may be *defined* as the conjunction of others (a row of a block).

    unify(A, B)   the two dimensions have the same positions
    merge(A, B)   flatten two dimensions into one
    split(A, ..)  the inverse of merge

Every fallback couples more or freezes, never less: after each ``unify`` both sides are resolved again and, unless the
rows hold equal sets of atomic units, both sides are frozen. Equality survives later unions, definitions and freezes,
so inference is sound whenever the rules are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .positions import NONE, Dim, constant, drop_shared, merge, row_classes, same_sets, tidy

__all__ = ["NONE", "Dim", "Units", "Why", "constant", "merge"]


@dataclass(frozen=True)
class Why:
    """Why something is frozen, and where in the model's source."""

    reason: str
    source: str = ""


class Units:
    """The arena of units: parents (union by minimum), definitions, frozen flags with their reasons."""

    def __init__(self) -> None:
        self._parent = np.zeros(1024, np.int32)
        self._block = np.full(1024, -1, np.int32)  # which definition block, -1 = atomic
        self._row = np.zeros(1024, np.int32)  # which row of it
        self._why = np.zeros(1024, np.int32)  # 0 = free, else index into whys
        self._blocks: list[Dim] = []
        self.whys: list[Why] = [Why("")]
        self._why_index: dict[Why, int] = {Why(""): 0}
        self._count = 1
        self._resolved: dict[int, tuple[Dim, Dim]] = {}  # id -> (the dimension, kept alive, its atoms); until a write
        self._why[NONE] = self.why(Why("constant"))

    def why(self, why: Why) -> int:
        """Return the index of a reason."""
        if why not in self._why_index:
            self._why_index[why] = len(self.whys)
            self.whys.append(why)
        return self._why_index[why]

    def fresh(self, size: int) -> Dim:
        """Return a dimension of ``size`` new independent units."""
        first, last = self._count, self._count + size
        while last > len(self._parent):
            self._grow()
        ids = np.arange(first, last, dtype=np.int32)
        self._parent[first:last] = ids
        self._count = last
        return ids[:, None]

    def _grow(self) -> None:
        more = len(self._parent)
        self._parent = np.concatenate([self._parent, np.zeros(more, np.int32)])
        self._block = np.concatenate([self._block, np.full(more, -1, np.int32)])
        self._row = np.concatenate([self._row, np.zeros(more, np.int32)])
        self._why = np.concatenate([self._why, np.zeros(more, np.int32)])

    # ---- reading ----------------------------------------------------------------------------------------------

    def roots(self, ids: np.ndarray) -> np.ndarray:
        """Return the representative of each unit."""
        found = self._parent[ids]
        while True:
            above = self._parent[found]
            if np.array_equal(above, found):
                return found
            found = above

    def reasons(self, units: np.ndarray) -> dict[Why, int]:
        """Return why frozen units are frozen, and how many for each reason."""
        numbers, counts = np.unique(self._why[self.roots(units)], return_counts=True)
        return {self.whys[n]: c for n, c in zip(numbers.tolist(), counts.tolist(), strict=True)}

    def resolve(self, dim: Dim, keep_frozen: bool = False) -> Dim:
        """Return ``dim`` in atomic units: definitions expanded, frozen and repeated units dropped, padded with NONE."""
        if dim.shape[1] == 0:
            return dim
        if not keep_frozen and id(dim) in self._resolved:
            return self._resolved[id(dim)][1]
        ids = self.roots(dim)
        while True:
            blocks = self._block[ids]
            if blocks.max(initial=-1) < 0:
                break
            ids = self.roots(self._expand(ids, blocks))
        if keep_frozen:
            return tidy(ids)
        atoms = tidy(np.where(self._why[ids] > 0, NONE, ids))
        self._resolved[id(dim)] = (dim, atoms)
        return atoms

    def _expand(self, ids: np.ndarray, blocks: np.ndarray) -> np.ndarray:
        columns = []
        for j in range(ids.shape[1]):
            column, block = ids[:, j], blocks[:, j]
            if (block == block[0]).all():
                known = block[0] >= 0
                columns.append(self._blocks[block[0]][self._row[column]] if known else column[:, None])
                continue
            used = np.unique(block)
            width = max([self._blocks[b].shape[1] for b in used if b >= 0] + [1])
            wide = np.zeros((len(column), width), np.int32)
            for b in used:
                rows = np.nonzero(block == b)[0]
                if b < 0:
                    wide[rows, 0] = column[rows]
                else:
                    wide[rows, : self._blocks[b].shape[1]] = self._blocks[b][self._row[column[rows]]]
            columns.append(wide)
        return np.concatenate(columns, axis=1)

    # ---- writing ----------------------------------------------------------------------------------------------

    def freeze(self, dim: Dim, why: Why) -> None:
        """Freeze every unit of a dimension."""
        atoms = self.resolve(dim)
        if atoms.shape[1]:
            self._why[atoms[atoms > NONE]] = self.why(why)
            self._resolved.clear()

    def _union(self, a: np.ndarray, b: np.ndarray) -> None:
        """Union atomic units pairwise (frozen spreads)."""
        self._resolved.clear()
        while True:
            a, b = self.roots(a), self.roots(b)
            differ = a != b
            if not differ.any():
                return
            a, b = a[differ], b[differ]
            low, high = np.minimum(a, b), np.maximum(a, b)
            np.minimum.at(self._parent, high, low)
            chosen = self._parent[high]
            frozen = self._why[high]
            spread = frozen > 0
            self._why[chosen[spread]] = frozen[spread]

    def _define(self, units: np.ndarray, rows: Dim) -> None:
        self._resolved.clear()
        self._block[units] = len(self._blocks)
        self._row[units] = np.arange(len(units), dtype=np.int32)
        self._blocks.append(np.ascontiguousarray(rows, dtype=np.int32))

    def unify(self, a: Dim, b: Dim, why: Why) -> None:
        """Make two dimensions of one size the same; ``why`` explains what this freezes, if anything."""
        if a is b:
            return
        a, b = self.resolve(a), self.resolve(b)
        if a.shape[1] == 0 and b.shape[1] == 0:
            return
        if a.shape == b.shape and np.array_equal(a, b):
            return
        if a.shape[1] == 1 and b.shape[1] == 1 and a.all() and b.all():
            self._union(a[:, 0], b[:, 0])
            return
        if a.shape[1] and b.shape[1] and a.all() and b.all():
            self._unify_rows(a, b, why)
        else:
            self._unify_ragged(a, b, why)
        if not same_sets(self.resolve(a), self.resolve(b)):
            undone = Why(f"{why.reason}: the axes cannot be matched unit by unit", why.source)
            self.freeze(a, undone)
            self.freeze(b, undone)

    def _unify_ragged(self, a: Dim, b: Dim, why: Why) -> None:
        """Sums of different structures stay apart: rows that hold the same columns go together."""
        patterns = np.concatenate([a > NONE, b > NONE], axis=1)
        _, which = np.unique(patterns, axis=0, return_inverse=True)
        which = which.reshape(-1)
        for pattern in range(which.max() + 1):
            rows = which == pattern
            self._unify_rows(a[rows], b[rows], why)

    def _unify_rows(self, a: Dim, b: Dim, why: Why) -> None:
        for _ in range(8):
            a, b = self.resolve(a), self.resolve(b)
            a, b = drop_shared(a[:, a.any(axis=0)], b[:, b.any(axis=0)])
            if not (a.all() and b.all()):
                return  # a freeze in between made it ragged: the caller's check decides
            if a.shape[1] == 0 or b.shape[1] == 0:
                self.freeze(a, why)
                self.freeze(b, why)
                return
            if not self._couple_once(a, b):
                return

    def _couple_once(self, a: Dim, b: Dim) -> bool:
        """Couple one pair of columns; return whether anything is left to couple."""
        if a.shape[1] == 1 and b.shape[1] == 1:
            self._union(a[:, 0], b[:, 0])
            return False
        if a.shape[1] == 1 or b.shape[1] == 1:
            return self._couple_one_to_many(*((a, b) if a.shape[1] == 1 else (b, a)))
        return self._couple_alike(a, b) or self._couple_in_order(a, b)

    def _couple_alike(self, a: Dim, b: Dim) -> bool:
        """Couple two columns that part the rows alike, else refine one by another; return whether either was found."""
        pairs = [
            (a[:, i], p, b[:, j], q)
            for i, p in enumerate([row_classes(a[:, i]) for i in range(a.shape[1])])
            for j, q in enumerate([row_classes(b[:, j]) for j in range(b.shape[1])])
        ]
        for one, p, other, q in pairs:
            if np.array_equal(p, q):
                self._union(one, other)
                return True
        return any(self._refine(one, p, other, q) or self._refine(other, q, one, p) for one, p, other, q in pairs)

    def _couple_in_order(self, a: Dim, b: Dim) -> bool:
        for j in range(min(a.shape[1], b.shape[1])):
            self._union(a[:, j], b[:, j])
        return True

    def _couple_one_to_many(self, single: Dim, many: Dim) -> bool:
        units, first, inverse = np.unique(single[:, 0], return_index=True, return_inverse=True)
        inverse = inverse.reshape(-1)
        if len(units) < len(inverse):  # a unit that repeats: its rows of `many` are one row
            for j in range(many.shape[1]):
                self._union(many[:, j], many[first[inverse], j])
            many = self.resolve(many)
            if not many.all() or many.shape[1] < 2:
                return True
        rows = many[first]
        if np.isin(units, rows).any():  # u = u and v: couple v to u
            for j in range(many.shape[1]):
                self._union(single[:, 0], many[:, j])
            return False
        self._define(units, rows)
        return False

    def _refine(self, fine: np.ndarray, p: np.ndarray, coarse: np.ndarray, q: np.ndarray) -> bool:
        """Define each ``fine`` unit as (its coarse unit, a fresh remainder), when fine determines coarse evenly."""
        units, first = np.unique(fine, return_index=True)
        owner = coarse[first]
        if not np.array_equal(owner[np.unique(fine, return_inverse=True)[1].reshape(-1)], coarse):
            return False
        owners, counts = np.unique(owner, return_counts=True)
        if len(owners) < 2 or counts.min() != counts.max() or counts[0] < 2 or np.isin(units, owners).any():
            return False
        order = np.argsort(owner, kind="stable")
        rank = np.empty(len(units), np.int64)
        rank[order] = np.tile(np.arange(counts[0]), len(owners))
        rest = self.fresh(int(counts[0]))
        self._define(units, np.stack([owner, rest[rank, 0]], axis=1))
        return True

    def split(self, dim: Dim, sizes: tuple[int, ...], why: Why) -> list[Dim]:
        """Split a dimension into factors, the inverse of ``merge``."""
        parts: list[Dim] = []
        rest = dim
        for i in range(len(sizes) - 1):
            tail = int(np.prod(sizes[i + 1 :]))
            first, rest = self._split_two(rest, sizes[i], tail, why)
            parts.append(first)
        return [*parts, rest]

    def _split_two(self, dim: Dim, outer: int, inner: int, why: Why) -> tuple[Dim, Dim]:
        if outer == 1:
            return constant(1), dim
        if inner == 1:
            return dim, constant(1)
        atoms = self.resolve(dim)
        first, second = [constant(outer)], [constant(inner)]
        for j in range(atoms.shape[1]):
            grid = atoms[:, j].reshape(outer, inner)
            if (grid == grid[:, :1]).all():
                first.append(grid[:, :1])
            elif (grid == grid[:1]).all():
                second.append(grid[:1].T)
            else:
                x, y = self.fresh(outer), self.fresh(inner)
                self.unify(atoms[:, j : j + 1], merge(x, y), why)
                first.append(x)
                second.append(y)
        return np.concatenate(first, axis=1), np.concatenate(second, axis=1)
