"""Recorded operators, timed alone in PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..graph.probes.operators import Sized
from ..graph.recording.execute import execute
from ..graph.recording.record import Ref, rebuild
from ..graph.recording.running import fixed_threads
from ..graph.recording.sizes import Real

_ACTIVATIONS = ("input", "self", "mat1", "query", "key", "value", "batch1", "batch2")
_CHUNK_ELEMENTS = 2**26  # in memory at once: enough that every call finds its weights cold
QUARTILE = 25.0


def time_calls(calls: Sequence[Sized], threads: int, sweeps: int) -> list[float]:
    """Return the milliseconds of each call; NaN where it does not run."""
    result: list[float] = []
    with torch.inference_mode(), fixed_threads(threads):
        for chunk in chunks(calls):
            ready = [_prepared(one) for one in chunk]
            rows = [[_timed(one) for one in ready] for _ in range(sweeps + 1)][1:]
            result += (1e3 * np.percentile(rows, QUARTILE, axis=0)).tolist()
    return result


def chunks(calls: Sequence[Sized], most: int = 64) -> Iterator[list[Sized]]:
    """Yield the calls in pieces that fit in memory."""
    piece: list[Sized] = []
    held = 0
    for one in calls:
        size = sum(int(np.prod(shape)) for shape in one.shapes.values())
        if piece and (held + size > _CHUNK_ELEMENTS or len(piece) == most):
            yield piece
            piece, held = [], 0
        piece.append(one)
        held += size
    if piece:
        yield piece


def _prepared(sized: Sized) -> tuple[Callable[[], Any], list[Tensor]] | None:
    """Return the call and its activations, or None where it does not run at these shapes."""
    generator = torch.Generator().manual_seed(0)
    bound = sized.bound()
    values = {
        ref.value: _filled(sized, ref.value, generator, turned=name == "mat2")
        for name, given in bound.items()
        for ref in _refs(given)
    }
    args, kwargs = rebuild(arguments(sized), lambda item: _real(item, values))
    warm = [values[bound[name].value] for name in _ACTIVATIONS if isinstance(bound.get(name), Ref)]

    def run() -> Any:
        return execute(sized.op, args, kwargs)

    try:
        run()
    except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError):
        return None
    return run, warm


def _refs(given: Any) -> list[Ref]:
    return [item for item in (given if isinstance(given, list | tuple) else [given]) if isinstance(item, Ref)]


def _filled(sized: Sized, value: int, generator: torch.Generator, *, turned: bool) -> Tensor:
    """Return a tensor of a value's shape; ``turned`` as a transposed view, which a linear layer's weight is."""
    shape, dtype = sized.shapes[value], sized.dtypes[value]
    if not dtype.is_floating_point:
        return torch.zeros(shape, dtype=dtype)
    if turned and len(shape) == 2:
        shape = shape[::-1]
    made = (torch.rand(shape, generator=generator) + 0.5).to(dtype)  # no denormals, however often it is run in place
    return made.t() if turned and len(shape) == 2 else made


def _real(item: Any, values: dict[int, Tensor]) -> Any:
    if isinstance(item, Ref):
        return values[item.value]
    if isinstance(item, bool):
        return item
    if isinstance(item, int):
        return int(item)
    return float(item) if isinstance(item, Real) else item


def arguments(sized: Sized) -> tuple[tuple, dict]:
    """Return the recorded arguments with the sizes among them that follow from widths filled in."""
    args, kwargs, bound = sized.op.args, sized.op.kwargs, sized.bound()
    if sized.kind in ("convolution", "_convolution"):
        return _with(sized, {"groups": groups(sized)})
    if sized.kind in ("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm"):
        count = len(bound["normalized_shape"])
        return _with(sized, {"normalized_shape": sized.shape("input")[-count:]})
    if sized.kind == "native_group_norm":
        batch, channels, *rest = sized.shape("input")
        return _with(sized, {"N": batch, "C": channels, "HxW": int(np.prod(rest))})
    return args, kwargs


def groups(sized: Sized) -> int:
    """Return a convolution's groups: channels over channels a group."""
    bound, weight = sized.bound(), sized.shape("weight")
    if int(bound["groups"]) == 1:
        return 1
    return sized.out[1] // weight[1] if bound["transposed"] else sized.shape("input")[1] // weight[1]


def _with(sized: Sized, new: dict[str, Any]) -> tuple[tuple, dict]:
    """Return the arguments with some replaced by name."""
    names = list(sized.bound())
    args, kwargs = list(sized.op.args), dict(sized.op.kwargs)
    for name, value in new.items():
        if names.index(name) < len(args):
            args[names.index(name)] = value
        else:
            kwargs[name] = value
    return tuple(args), kwargs


def _timed(ready: tuple[Callable[[], Any], list[Tensor]] | None) -> float:
    if ready is None:
        return float("nan")
    run, warm = ready
    for tensor in warm:
        tensor.copy_(tensor.clone())  # as if a layer had just written it
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
