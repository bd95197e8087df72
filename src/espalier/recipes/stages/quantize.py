"""Quantize: put a network on grids, by calibration or in training, and say how noisy each layer is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ...core.run import Point, QuantizedLayer
from ...transforms import quantize
from ...transforms.bits import Limit, chosen_bits
from ...transforms.quantization import Quantized, rows_of
from ..folders.checkpoints import Handle
from ..steps import Quantize
from ..training.state import State
from ..work import Work
from .path import costs


def do(step: Quantize, name: str, work: Work, handle: Handle) -> Handle:
    """Quantize, add the result to the path, and write down what each layer has become."""
    work.pruned = True
    handle = (
        _calibrated(step, name, work, handle) if step.method == "post_training" else _trained(step, name, work, handle)
    )
    return handle


def _calibrated(step: Quantize, name: str, work: Work, handle: Handle) -> Handle:
    whole, words = handle, _words(step)

    def work_on() -> tuple[State, dict[str, Any]]:
        state = whole.open()
        found = _quantized(step, work, state)
        rows = [asdict(row) for row in found.layers]
        kept = {"layers": rows, "sqnr_db": found.sqnr_db, "notes": list(found.notes)}
        return State(found.model, None, state.kept, state.epochs), kept

    handle, found = work.checkpoints.change(f"{name}/calibrated", work_on)
    for note in found["notes"]:
        work.journal.note(note)
    rows = tuple(QuantizedLayer(**row) for row in found["layers"])
    work.journal.update(quantized=rows, sqnr_db=found["sqnr_db"])
    cost = costs(work, f"{name}/calibrated", handle)
    score = work.score(f"{name}/score", handle)
    work.visit(Point(stage=words, kind="cut", macs=cost.macs, params=cost.params, score=score))
    return handle


def _quantized(step: Quantize, work: Work, state: State) -> Quantized:
    how, data = step.settings(), list(_batches(work, step.batches))
    if step.budgeted:
        limit = Limit(step.size_bytes, step.size_ratio, step.bit_operations_ratio)
        how = chosen_bits(state.model, data, how, limit, choices=step.choices)
    return quantize(state.model, data, how)


def _trained(step: Quantize, name: str, work: Work, handle: Handle) -> Handle:
    assert step.finetune is not None
    words = _words(step)
    handle, score = work.learn(f"{name}/train", handle, step.finetune, words, method=(step.trainer(), None))
    found = work.checkpoints.once(f"{name}/layers", lambda: [asdict(row) for row in rows_of(handle.open().model)])
    work.journal.update(quantized=tuple(QuantizedLayer(**row) for row in found))
    cost = costs(work, f"{name}/train", handle)
    work.visit(Point(stage=words, kind="trained", macs=cost.macs, params=cost.params, score=score))
    return handle


def _words(step: Quantize) -> str:
    bits = "bits by budget" if step.budgeted else f"{step.weight_bits} bits"
    how = {"post_training": "after training", "lsq": "by lsq", "ste": "by ste"}[step.method]
    return f"quantized to {bits} {how}"


def _batches(work: Work, count: int) -> Iterator[Any]:
    """Yield the first training batches of epoch 0: the same ones every time, on every rank."""
    train = work.task.train
    epoch, train.epoch = train.epoch, 0
    try:
        yield from itertools.islice(train, count)
    finally:
        train.epoch = epoch
