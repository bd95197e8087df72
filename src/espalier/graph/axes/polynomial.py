"""Polynomials in group sizes: how many positions a dimension keeps, whatever units are chosen.

A dimension that concatenates products (heads x head_dim, then 8 channels) has the size ``1*h*d + 1*c``. Symbols are
group numbers, or attributes while these are being solved for.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from fractions import Fraction

Monomial = tuple[tuple[Hashable, int], ...]  # ((symbol, power), ...) sorted, powers not zero


def _times(a: Monomial, b: Monomial, sign: int = 1) -> Monomial:
    powers = dict(a)
    for symbol, power in b:
        powers[symbol] = powers.get(symbol, 0) + sign * power
    return tuple(sorted(((s, p) for s, p in powers.items() if p), key=repr))


class Poly:
    """A sum of monomials with rational coefficients; powers may be negative."""

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[Monomial, Fraction]) -> None:
        self.terms = {m: c for m, c in terms.items() if c}

    @classmethod
    def const(cls, value: int | Fraction) -> Poly:
        """A number."""
        return cls({(): Fraction(value)})

    @classmethod
    def symbol(cls, symbol: Hashable) -> Poly:
        """One symbol."""
        return cls({((symbol, 1),): Fraction(1)})

    def __add__(self, other: Poly) -> Poly:
        terms = dict(self.terms)
        for monomial, c in other.terms.items():
            terms[monomial] = terms.get(monomial, Fraction(0)) + c
        return Poly(terms)

    def __sub__(self, other: Poly) -> Poly:
        return self + Poly({m: -c for m, c in other.terms.items()})

    def __mul__(self, other: Poly | int) -> Poly:
        other = other if isinstance(other, Poly) else Poly.const(other)
        terms: dict[Monomial, Fraction] = {}
        for a, x in self.terms.items():
            for b, y in other.terms.items():
                key = _times(a, b)
                terms[key] = terms.get(key, Fraction(0)) + x * y
        return Poly(terms)

    def __floordiv__(self, number: int) -> Poly:
        """Divide by a number that divides it."""
        return self * Poly.const(Fraction(1, number))

    def over(self, other: Poly) -> Poly | None:
        """Return the quotient by a single monomial, else None."""
        if len(other.terms) != 1:
            return None
        ((bottom, c),) = other.terms.items()
        return Poly({_times(m, bottom, -1): x / c for m, x in self.terms.items()})

    def symbols(self) -> set[Hashable]:
        """Return every symbol in it."""
        return {s for monomial in self.terms for s, _ in monomial}

    def value(self, sizes: Mapping[Hashable, int] | list[int]) -> Fraction:
        """Evaluate."""
        total = Fraction(0)
        for monomial, c in self.terms.items():
            product = c
            for symbol, power in monomial:
                product *= Fraction(sizes[symbol]) ** power  # type: ignore[index]
            total += product
        return total

    def substitute(self, symbol: Hashable, by: Poly) -> Poly | None:
        """Replace a symbol; None when it has a negative power and ``by`` is not one monomial."""
        result = Poly({})
        for monomial, c in self.terms.items():
            power = dict(monomial).get(symbol, 0)
            rest = Poly({tuple((s, p) for s, p in monomial if s != symbol): c})
            for _ in range(abs(power)):
                grown = rest * by if power > 0 else rest.over(by)
                if grown is None:
                    return None
                rest = grown
            result = result + rest
        return result

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Poly) and self.terms == other.terms

    __hash__ = None  # type: ignore[assignment]
