"""Walks: a forward pass that stops at chosen function calls, so that many of them advance layer by layer together.

    walk 1  ──▶ conv1 ─┐        ┌─▶ conv2 ─┐
    walk 2  ──▶ conv1 ─┴ solve ─┴─▶ conv2 ─┴ solve ...        one forward pass a batch, whatever the depth

A model's own Python cannot be stopped in the middle by its caller, so each walk is a thread; only one runs at a time,
and everything is as deterministic as one thread would be.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..graph.probes.gates import hands_on

_ASKS = {"__get__", "size", "dim", "numel", "stride", "is_contiguous", "__len__", "element_size", "is_floating_point"}


def asks(func: Any) -> bool:
    """Whether a function only asks for a tensor's properties.

    Such calls are not counted: a hook, or a branch on a size, may make them in one network alone.
    """
    name = getattr(func, "__name__", "")
    return name in _ASKS and not (name == "__get__" and hands_on(func, name))


@dataclass(frozen=True, eq=False)
class Stop:
    """Where a walk stands.

    Attributes:
        index: number of the function call in the forward pass.
        name: of the function.
        args, kwargs: what it is given.
        result: what it returned, or None when the walk stops before calls.
        kept: results of earlier calls that were asked for.
    """

    index: int
    name: str
    args: tuple
    kwargs: dict
    result: Any
    kept: dict[int, Tensor]


class _Closed(BaseException):
    """Ends a walk's thread; not an Exception, so that no model swallows it."""


class Walk:
    """One forward pass that stops before, or after, the calls in ``stops``.

    Args:
        run: makes the forward pass.
        stops: numbers of function calls.
        keep: calls whose results later stops want to see: ``{its number: the last stop that does}``.
        after: stop after the call, with its result, instead of before.
    """

    def __init__(self, run: Callable[[], Any], stops: Collection[int], keep: Mapping[int, int], *, after: bool) -> None:
        self._run, self._mode = run, _Stopping(self, frozenset(stops), keep, after)
        self._go, self._there = threading.Semaphore(0), threading.Semaphore(0)
        self._stop: Stop | None = None
        self._error: BaseException | None = None
        self._closing = self._ended = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def advance(self) -> Stop | None:
        """Go on to the next stop and return it; None at the end.

        Raises:
            Exception: what the model raised.
        """
        if self._ended:
            return None
        self._stop = None
        self._go.release()
        self._there.acquire()
        if self._error is not None:
            raise self._error
        return self._stop

    def close(self) -> None:
        """Give the rest of the forward pass up."""
        self._closing = True
        self._go.release()
        self._thread.join()
        self._stop = None

    def wait(self, stop: Stop) -> None:
        """Stand at a stop; called on the walk's own thread."""
        self._stop = stop
        self._there.release()
        self._go.acquire()
        if self._closing:
            raise _Closed

    def _work(self) -> None:
        self._go.acquire()
        try:
            if not self._closing:
                with suppress(_Closed), torch.no_grad(), self._mode:
                    self._run()
        except BaseException as error:  # raised again where the walk was advanced
            self._error = error
        finally:
            self._ended = True
            self._there.release()


class _Stopping(TorchFunctionMode):
    """Counts the function calls of a forward pass, and stops at some."""

    def __init__(self, walk: Walk, stops: frozenset[int], keep: Mapping[int, int], after: bool) -> None:
        super().__init__()
        self.walk, self.stops, self.keep, self.after = walk, stops, keep, after
        self.count = 0
        self.kept: dict[int, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if asks(func):
            return func(*args, **kwargs)
        index, self.count = self.count, self.count + 1
        if index in self.stops and not self.after:
            self._stand(index, func, args, kwargs, None)
        result = func(*args, **kwargs)
        if index in self.keep:
            self.kept[index] = result
        if index in self.stops and self.after:
            self._stand(index, func, args, kwargs, result)
        return result

    def _stand(self, index: int, func: Any, args: tuple, kwargs: dict, result: Any) -> None:
        self.walk.wait(Stop(index, getattr(func, "__name__", ""), args, kwargs, result, self.kept))
        self.kept = {made: tensor for made, tensor in self.kept.items() if self.keep[made] > index}
