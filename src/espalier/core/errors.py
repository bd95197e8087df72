"""Every error a user can meet. Each message says what, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from os.path import commonprefix


class EspalierError(Exception):
    """The root of all expected errors: the command line prints its message and exits with 2."""


class KindError(EspalierError, TypeError):
    """An argument is of another kind than the function takes."""


class ModelError(EspalierError):
    """The model cannot be used: it does not run on its example, or nothing in it can be pruned."""


class PlanError(EspalierError):
    """A plan does not fit this network: unknown group, unit out of range, broken tie, another network's plan."""


class BudgetError(EspalierError):
    """A budget is malformed, or no plan can reach it."""


class CutError(EspalierError):
    """The surgery could not be carried out."""


class ProofError(CutError):
    """The surgery was carried out but did not prove itself; nothing is returned.

    Attributes:
        groups: which groups fail when they are cut alone; empty where none does.
    """

    def __init__(self, message: str, groups: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.groups = groups


class MaskError(EspalierError):
    """Masks do not fit this network: a tensor is missing, is no weight, or has another shape."""


class GridError(EspalierError):
    """Grids do not fit this network, or are none: a name, a shape, a step or a number of bits."""


class QuantizationError(EspalierError):
    """A quantized network would be mostly noise; the message names the layers that it comes from."""


class SharingError(EspalierError):
    """Clusters do not fit this network: a tensor is missing, is no weight, or has another shape."""


class FileError(EspalierError):
    """A file is missing, truncated, damaged or foreign."""


class EspalierWarning(UserWarning):
    """What was done is right, but something that the user may count on no longer holds."""


class UnknownNameError(EspalierError):
    """A name that nobody knows, with the nearest valid one."""

    def __init__(self, kind: str, name: str, valid: Iterable[str], hint: str = "") -> None:
        choices = sorted(valid)
        near = _nearest(name, choices)
        known = ", ".join(choices[:12]) + (", ..." if len(choices) > 12 else "")
        guess = f" Did you mean {near!r}?" if near else f" Known: {known}." if known else ""
        super().__init__(f"unknown {kind} {name!r}.{guess}{' ' + hint if hint else ''}")


def _nearest(name: str, choices: list[str]) -> str:
    """Return the choice that is most like a name, among equals the one that begins like it; "" where none is."""

    def likeness(choice: str) -> tuple[float, int]:
        return difflib.SequenceMatcher(None, choice, name).ratio(), len(commonprefix((choice, name)))

    return max(difflib.get_close_matches(name, choices, n=8, cutoff=0.4), key=likeness, default="")


def cause(error: BaseException) -> str:
    """Return what went wrong in code that is not ours: the error's kind and text, or its kind alone.

    >>> cause(ValueError("too wide")), cause(AssertionError())
    ('ValueError: too wide', 'AssertionError')
    """
    text = str(error).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
