"""Encode: the result in few bytes, and what every stage on the way would take as a file."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ... import coding
from ...coding import Report
from ...core import FileError
from ...core.run import Coded, CodedTensor
from ...graph.files import contents
from ...graph.masks import masks_of
from ...graph.recording.tensors import named_tensors
from ..folders.checkpoints import Handle
from ..steps import Encode, Step
from ..work import Work

_STAGES = {
    "prune": "pruned",
    "sparsify": "sparsified",
    "cluster": "clustered",
    "quantize": "quantized",
    "binarize": "binarised",
}
_FLOAT_BYTES = 4  # of a parameter of the dense network, which papers count from
_MOST_VALUES = 1 << 12  # of a codebook
_SHARED = 0.75  # distinct values to a weight, above which they are not shared


def do(step: Encode, name: str, work: Work, handle: Handle) -> Handle:
    """Write the file, where there is a folder, and say what it takes."""
    found = work.checkpoints.once(name, lambda: work.engine.first(lambda: _encoded(step, work, handle)))
    whole = Coded(**{**found["whole"], "score": work.score(f"{name}/score", handle)})
    rows = (*work.journal.run.coded, whole)
    work.journal.update(coded=rows, coded_tensors=tuple(CodedTensor(**one) for one in found["tensors"]))
    return handle


def weigh(step: Step, name: str, work: Work, handle: Handle) -> None:
    """Put what a step came to into the table of stages, where the run is to end in an encoded file."""
    if step.kind not in _STAGES or not any(isinstance(one, Encode) for one in work.recipe.steps):
        return
    if not work.journal.run.coded:
        _weigh("dense", "dense", work, work.dense)
    _weigh(_STAGES[step.kind], name, work, handle)


def _weigh(stage: str, key: str, work: Work, handle: Handle) -> None:
    """Add a network on the way to the table: what it takes as an encoded file, which is not kept."""
    score = work.score(f"{key}/coded-score", handle)

    def weighed() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            return _row(stage, handle.open().model, write(handle.open().model, Path(folder) / "model.esp"), work)

    found = work.checkpoints.once(f"{key}/coded", lambda: work.engine.first(weighed))
    work.journal.update(coded=(*work.journal.run.coded, Coded(**{**found, "score": score})))


def write(model: nn.Module, path: Path) -> Report:
    """Write a model as an encoded file, with all that is found about its tensors.

    Raises:
        FileError: the model has state that no file can hold, or the place cannot be written.
    """
    held = contents(model, path)
    return coding.encode(held, path, tensors=coding.discover(held))


def _encoded(step: Encode, work: Work, handle: Handle) -> dict[str, Any]:
    model, folder = handle.open().model, work.journal.folder
    with tempfile.TemporaryDirectory() as elsewhere:
        path = (Path(elsewhere) if folder is None else folder) / step.name
        report = write(model, path)
        _check_same(path, model)
    return {"whole": _row("encoded", model, report, work), "tensors": [asdict(one) for one in _tensors(model, report)]}


def _check_same(path: Path, model: nn.Module) -> None:
    """See that the file decodes to the model's numbers, bit by bit.

    Raises:
        FileError: it does not.
    """
    back, held = coding.decode(path), contents(model, path).tensors
    wrong = [name for name, one in held.items() if not torch.equal(_bits(back[name]), _bits(one))]
    if wrong:
        raise FileError(f"{path}: {wrong[0]!r} does not decode to what it was")


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _row(stage: str, model: nn.Module, report: Report, work: Work) -> dict[str, Any]:
    """Return a row of the table of stages."""
    dense = sum(one.numel() for one in work.dense.open().model.parameters())
    rows = _tensors(model, report)
    weights, kept = sum(one.weights for one in rows), sum(one.kept for one in rows)
    few = [one for one in rows if one.values]
    bits = sum(one.kept * one.bits for one in few) / kept if few and kept else None
    row = Coded(
        stage=stage, weights=weights, kept=kept, bits=bits, bytes=report.bytes, dense_bytes=_FLOAT_BYTES * dense
    )
    return asdict(row)


def _tensors(model: nn.Module, report: Report) -> list[CodedTensor]:
    """Return what each tensor of weights is made of, and what it takes."""
    tensors, masks = named_tensors(model), masks_of(model).kept
    found = []
    for one in report.tensors:
        weight = tensors[one.name].detach()
        if weight.dim() < 2 or not weight.is_floating_point():
            continue
        left = weight if one.name not in masks else weight.cpu()[masks[one.name].cpu()]
        left = left[left != 0]
        distinct = len(left.unique())
        few = distinct if distinct <= min(_MOST_VALUES, _SHARED * left.numel()) else 0
        found.append(
            CodedTensor(
                name=one.name, weights=weight.numel(), kept=left.numel(), values=few, bits=_symbol_bits(few, left),
                kind=one.kind, coder=one.coder, bytes=one.bytes,
            )
        )  # fmt: skip
    return found


def _symbol_bits(values: int, left: torch.Tensor) -> int:
    """Return the bits of a symbol of one length; of a number where values are many."""
    return max(1, (values - 1).bit_length()) if values else 8 * left.element_size()
