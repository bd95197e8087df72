"""Latency tables, measured: every layer alone at many widths, and the whole network.

graph --operators--> layers, each once --widths to try--> calls --backend--> milliseconds
factor = the whole network / the sum of its layers: fusion, copies, and what is too small to be timed alone
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from .. import backends
from ..core import ModelError
from ..graph import Graph
from ..graph.probes.operators import Operator, operators, widest
from ..selection.latency import LatencyModel
from ..selection.tables import Conditions, Tables, TablesError, Widths
from .machine import machine

Progress = Callable[[int, int], None]  # calls timed, calls in all

_SWEEPS = 7
_ROUNDS = 30  # of the whole network
_BLOCK = 16  # kernels' own; its multiples are tried densely, the widths between them here and there
_STEPS = 16  # multiples tried along an axis
_GRID = (1 / 8, 1 / 4, 1 / 2, 3 / 4)  # of each width, where two are tried together
_PIECE = 128  # calls between two reports of progress


def latency_tables(
    model: nn.Module,
    graph: Graph,
    *,
    backend: str = "onnxruntime",
    threads: int = 1,
    batch: int = 1,
    on_progress: Progress | None = None,
) -> Tables:
    """Time every layer of a network alone, at many widths, and the whole network.

    Args:
        model: what ``graph`` was traced from, or a copy.
        graph: from ``trace``; its example, resized to ``batch``, is what the network is timed on.
        backend: "eager", "compile", "onnxruntime" or "openvino".
        threads: of the backend.
        batch: of the inputs.
        on_progress: called with (calls timed, calls in all).

    Raises:
        BackendError: the backend is not there, or cannot run the network.
        ModelError: the network is not simply called on its example.
    """
    runner = backends.named(backend)
    example = example_of(graph, batch)
    dense_ms = _whole(runner.prepare(model, example, threads))
    timed = {key: one for key, one in widest(operators(graph, batch)).items() if runner.times(one[0].kind)}
    wanted = [(key, one, widths) for key, (one, full) in timed.items() for widths in design(full)]
    times = _timed(runner, [(one, widths) for _, one, widths in wanted], threads, on_progress)
    layers: dict[str, dict[Widths, float]] = {key: {} for key in timed}
    for (key, _, widths), ms in zip(wanted, times, strict=True):
        if math.isfinite(ms) and ms > 0:
            layers[key][widths] = ms
    layers = {key: rows if len(rows) == len(design(timed[key][1])) else {} for key, rows in layers.items()}
    kinds = tuple(sorted({one.kind for one, _ in timed.values()}))
    conditions = conditions_of(model, backend, threads, batch)
    tables = Tables(conditions, kinds, layers, dense_ms, 1.0)
    alone = LatencyModel.of(graph, tables).ms(graph.sizes)
    return tables.recalibrated(alone, dense_ms) if alone > 0 else tables


def check_tables(tables: Tables, model: nn.Module, graph: Graph, *, anywhere: bool = False) -> None:
    """Check that tables describe this network, this machine and this backend as it is installed.

    Args:
        tables: measured, or read from a file.
        model, graph: the network.
        anywhere: allow another machine or version: plans are then for that one.

    Raises:
        TablesError: they do not; says what differs.
    """
    own = tables.conditions
    here = conditions_of(model, own.backend, own.threads, own.batch)
    differ = [
        f"{name} {getattr(own, name)!r} (here {getattr(here, name)!r})"
        for name in ("machine", "version", "dtype")
        if getattr(own, name) != getattr(here, name)
    ]
    if differ and not anywhere:
        raise TablesError(
            f"the latency tables were measured elsewhere: {', '.join(differ)}. Measure here with "
            "measure.latency_tables(model, graph), or pass anywhere=True to plan for that machine"
        )
    LatencyModel.of(graph, tables)


def conditions_of(model: nn.Module, backend: str, threads: int, batch: int) -> Conditions:
    """Return the conditions of a measurement here and now.

    Raises:
        BackendError: the backend is not there.
    """
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    version = backends.named(backend).version()
    return Conditions(machine(), backend, version, threads, batch, str(dtype).removeprefix("torch."))


def example_of(graph: Graph, batch: int) -> Any:
    """Return the traced example with its leading dimension repeated or cut to ``batch``.

    Raises:
        ModelError: the network was traced with a function of the user's, which no backend can run.
    """
    if graph.forward_fn is not None:
        raise ModelError("latency is measured by calling the model on its example; it was traced with a forward_fn")
    tensors = [leaf for leaf in tree_leaves(graph.example) if isinstance(leaf, torch.Tensor)]
    traced = tensors[0].shape[0] if tensors[0].dim() else 1

    def resized(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or not leaf.dim() or leaf.shape[0] != traced or traced == batch:
            return leaf
        repeats = (-(-batch // traced),) + (1,) * (leaf.dim() - 1)
        return leaf.repeat(repeats)[:batch].contiguous()

    return tree_map(resized, graph.example)


def design(full: Widths) -> list[Widths]:
    """Return the widths to time a layer at: along each axis with the others full, and of two axes a coarse grid.

    >>> design((32,))
    [(1,), (5,), (8,), (16,), (21,), (24,), (32,)]
    """
    found: dict[Widths, None] = {}
    for axis, width in enumerate(full):
        found.update(dict.fromkeys((*full[:axis], tried, *full[axis + 1 :]) for tried in along(width)))
    if len(full) == 2:
        lines = [sorted({_multiple(share * width) for share in _GRID} - {0, width}) for width in full]
        found.update(dict.fromkeys(itertools.product(*lines)))
    return list(found) or [()]


def along(width: int) -> list[int]:
    """Return the widths up to ``width`` to try along an axis: multiples of the block, of half of it, and odd ones."""
    step = _BLOCK * max(1, round(width / _BLOCK / _STEPS))
    blocks = {*range(_BLOCK, min(width, 4 * _BLOCK) + 1, _BLOCK), *range(step, width + 1, step)}
    half, odd = _BLOCK // 2, 5
    between = {_multiple(share * width) + more for share in (0, 1 / 4, 1 / 2, 3 / 4, 1) for more in (half, odd)}
    between |= {half, odd, _multiple(width) - half, _multiple(width) - _BLOCK + odd}
    few = range(1, width + 1) if width <= 4 else (1,)
    return sorted(w for w in {*blocks, *between, *few, width} if 1 <= w <= width)


def _multiple(width: float) -> int:
    return int(width) // _BLOCK * _BLOCK


def _timed(
    runner: backends.Backend, wanted: Sequence[tuple[Operator, Widths]], threads: int, on_progress: Progress | None
) -> list[float]:
    times: list[float] = []
    for start in range(0, len(wanted), _PIECE):
        piece = [one.at(widths) for one, widths in wanted[start : start + _PIECE]]
        times += runner.time(piece, threads, _SWEEPS)
        if on_progress is not None:
            on_progress(len(times), len(wanted))
    return times


def _whole(run: Callable[[], Any]) -> float:
    for _ in range(3):
        run()
    seconds = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds)
