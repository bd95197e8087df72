"""Input sizes: what the model's Python decides by the batch, the length or the height of its input.

A cut is proved at the example's sizes. Where a bound, a shift or a new shape follows from a size of the input, other
inputs put the positions of an axis elsewhere: such an axis is one of places, not of channels, and freezes.

    moving    a size that another input may change: of an axis without units that no weight and no literal fixes
    a bound   ``scores[..., :x.shape[1]]``: freezes if its value moves
    a shape   ``y.t().reshape(y.shape)``: done again at other sizes; freezes unless its units fall out alike
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..recording.record import Record
from ..recording.sizes import Expr, Size, const, evaluate, expr_of, leaves
from .regroup import pairing, splits
from .units import Dim, Why

if TYPE_CHECKING:
    from .inference import Axes

_PRIMES = (5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
_BOUND = "its bound is a size of the input"
_SHAPE = "sizes of the input are reshaped with it: other sizes order it differently"


@dataclass(frozen=True, eq=False)
class Bound:
    """A number that decides which positions of ``dim`` are meant."""

    number: Expr
    dim: Dim
    training: bool
    why: Why


@dataclass(frozen=True, eq=False)
class Reshape:
    """Dimensions ``old`` that became as many positions as ``numbers`` say."""

    old: Sequence[Dim]
    numbers: Sequence[Expr]
    training: bool
    why: Why


@dataclass(eq=False)
class Said:
    """What the rules said of sizes, in the order of the operators; dimensions by their identity, kept alive.

    Attributes:
        literal: dimensions whose size no input changes: it is written into the code or the model.
        matched: pairs that are of one size, one of them without units.
        sized: dimensions with units that are as many as a number, with the record's mode.
        bounds, reshapes: what to look into when everything is known.
        bare: of the record at hand, ``{number: the size that became it}`` (``len(x)``, ``int(x.shape[0])``).
    """

    literal: dict[int, Dim] = field(default_factory=dict)
    matched: list[tuple[Dim, Dim]] = field(default_factory=list)
    sized: dict[int, tuple[Dim, Expr, bool]] = field(default_factory=dict)
    bounds: list[Bound] = field(default_factory=list)
    reshapes: list[Reshape] = field(default_factory=list)
    bare: dict[float, Expr] = field(default_factory=dict)

    def begin(self, record: Record) -> None:
        """Note which sizes a record's Python made bare numbers of."""
        self.bare = {value: expr for expr, value in record.heard.lost if _has_dim(expr)}

    def expr(self, number: int) -> Expr:
        """Return what a number was computed from; a bare one that a size has become is taken for it."""
        expr = expr_of(number)
        if expr[0] != "const" or abs(expr[1]) not in self.bare:
            return expr
        bare = self.bare[abs(expr[1])]
        return bare if expr[1] >= 0 else ("*", bare, const(-1))

    def size(self, number: Size, dim: Dim, training: bool) -> None:
        """Note that ``dim`` has ``number`` positions."""
        expr = self.expr(number)
        if not _has_dim(expr):
            self.literal[id(dim)] = dim
        elif dim.shape[1]:
            self.sized.setdefault(id(dim), (dim, expr, training))

    def match(self, a: Dim, b: Dim) -> None:
        """Note that two dimensions are of one size, if it tells anything."""
        if not (a.shape[1] and b.shape[1]):
            self.matched.append((a, b))

    def bound(self, number: Any, dim: Dim, training: bool, source: str) -> None:
        """Note a number that decides which positions of ``dim`` are meant."""
        if isinstance(number, int) and dim.shape[1] and _has_dim(expr := self.expr(number)):
            self.bounds.append(Bound(expr, dim, training, Why(_BOUND, source)))

    def reshape(self, old: Sequence[Dim], numbers: Any, training: bool, source: str) -> None:
        """Note a new shape that Python gave."""
        if all(isinstance(n, Size) for n in numbers) and any(dim.shape[1] for dim in old):
            exprs = [expr_of(n) if n == -1 else self.expr(n) for n in numbers]
            if any(map(_has_dim, exprs)):
                self.reshapes.append(Reshape(tuple(old), exprs, training, Why(_SHAPE, source)))


def _has_dim(expr: Expr) -> bool:
    return any(leaf[0] == "dim" for leaf in leaves(expr))


class InputSizes:
    """Which sizes another input may change."""

    def __init__(self, axes: Axes, records: Sequence[Record], originals: dict[tuple, int]) -> None:
        self._axes, self._originals = axes, originals
        self._records = {record.training: record for record in records}
        self._fixed = set(axes.said.literal)
        for a, b in axes.said.matched:
            for free, other in ((a, b), (b, a)):
                if id(other) in axes.places:
                    self._fixed.add(id(free))

    def freeze(self) -> None:
        """Freeze every axis whose positions another input would put elsewhere."""
        for bound in (*self._axes.said.bounds, *self._covered()):
            if self.moves(bound.number, bound.training):
                self._axes.units.freeze(bound.dim, bound.why)
        for reshape in self._axes.said.reshapes:
            if self._reorders(reshape):
                for dim in reshape.old:
                    self._axes.units.freeze(dim, reshape.why)

    def _covered(self) -> Iterator[Bound]:
        """Yield the slices that took everything, which no operator tells."""
        for training, record in self._records.items():
            for (number, (_, value, d)), source in record.heard.covered.items():
                yield Bound(number, self._axes.values[training][value][d], training, Why(_BOUND, source))

    def moves(self, number: Expr, training: bool) -> bool:
        """Whether another input may change the value of a number."""
        moving = self._moving(number, training)
        if not moving:
            return False
        trials = (
            moving,
            {key: n + i for i, (key, n) in enumerate(moving.items(), 1)},
            {key: 2 * n + i for i, (key, n) in enumerate(moving.items())},
            {key: 8 * n + 3 * i for i, (key, n) in enumerate(moving.items(), 1)},
        )
        try:
            return len({evaluate(number, self._values(training, trial)) for trial in trials}) > 1
        except ArithmeticError:
            return True

    def _moving(self, number: Expr, training: bool) -> dict[int, int]:
        """Return the sizes in a number that another input may change, by their dimensions' identities."""
        found = (leaf for leaf in leaves(number) if leaf[0] == "dim" and self._is_moving(leaf, training))
        return {id(dim): len(dim) for dim in (self._dim(leaf, training) for leaf in found)}

    def _dim(self, leaf: Expr, training: bool) -> Dim:
        return self._axes.values[training][leaf[1]][leaf[2]]

    def _is_moving(self, leaf: Expr, training: bool) -> bool:
        record = self._records[training]
        known = leaf[1] in record.names or leaf[1] in record.constants
        return not known and self._free(self._dim(leaf, training))

    def _free(self, dim: Dim) -> bool:
        """Whether another input may give a dimension another size."""
        if id(dim) in self._fixed:
            return False
        if dim.shape[1] == 0:
            return True
        said = self._axes.said.sized.get(id(dim))
        if said is None:
            return False
        self._fixed.add(id(dim))  # while its own number is looked into
        moves = self.moves(said[1], said[2])
        if moves:
            self._fixed.discard(id(dim))
        return moves

    def _values(self, training: bool, changed: dict[int, int]) -> Callable[[Expr], int]:
        """Return what the leaves of an expression are worth where some dimensions have other sizes."""

        def value(leaf: Expr) -> int:
            if leaf[0] == "attr":
                return self._originals[leaf[1:]]
            dim = self._dim(leaf, training)
            return changed.get(id(dim), len(dim))

        return value

    def _reorders(self, reshape: Reshape) -> bool:
        """Whether a reshape at other sizes of the input would couple units otherwise."""
        held = [self._axes.units.resolve(dim).shape[1] > 0 for dim in reshape.old]
        own = self._shapes(reshape, {})
        others = [self._shapes(reshape, trial) for trial in self._changes(reshape, held)]
        worth = [other for other in others if other[1] and (splits(*other, held) or splits(*own, held))]
        differs = any(pairing(*other, held) != pairing(*own, held) for other in worth)
        return differs and not any(map(self._repeats, reshape.old))

    def _changes(self, reshape: Reshape, held: Sequence[bool]) -> Iterator[dict[int, int]]:
        """Yield other sizes for a reshape, by their dimensions' identities; none where they might contradict."""
        moving = {id(dim): len(dim) for dim in reshape.old if dim.shape[1] == 0 and self._free(dim)}
        for number in reshape.numbers:
            moving.update(self._moving(number, reshape.training))
        known = self._axes.given.issuperset(moving)  # else one may be a product of others, say height times width
        sure = const(-1) not in reshape.numbers and moving.keys() <= {id(dim) for dim in reshape.old}
        if any(held) and moving and (known or sure):
            sizes = [len(dim) for dim, has in zip(reshape.old, held, strict=True) if has and known]
            yield from _trials(moving, sizes)

    def _repeats(self, dim: Dim) -> bool:
        """Whether a dimension holds its units several times over: how often may be a size of the input."""
        atoms = self._axes.units.resolve(dim, keep_frozen=True)
        return atoms.shape[1] > 0 and len(np.unique(atoms, axis=0)) < len(atoms)

    def _shapes(self, reshape: Reshape, changed: dict[int, int]) -> tuple[list[int], list[int]]:
        """Return the old and the new shape at other sizes; no new one where Python would have failed."""
        old = [changed.get(id(dim), len(dim)) for dim in reshape.old]
        try:
            new = [int(evaluate(number, self._values(reshape.training, changed))) for number in reshape.numbers]
        except ArithmeticError:
            return old, []
        whole, rest = math.prod(old), math.prod(n for n in new if n != -1)
        if -1 in new and rest > 0 and whole % rest == 0:
            new[new.index(-1)] = whole // rest
        return old, new if min(new, default=1) > 0 and math.prod(new) == whole else []


def _trials(moving: dict[int, int], held: Iterable[int]) -> Iterator[dict[int, int]]:
    """Yield other sizes: each its own, equal ones alike, all of them one, and all a factor of a ``held`` size."""
    alike = dict(zip(dict.fromkeys(moving.values()), _PRIMES, strict=False))
    yield dict(zip(moving, _PRIMES, strict=False))
    yield {key: alike.get(n, n) for key, n in moving.items()}
    for size in {1, *(next(p for p in range(2, n + 1) if n % p == 0) for n in held)}:
        yield dict.fromkeys(moving, size)
