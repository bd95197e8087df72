"""A run: what was asked, what happened, and what came out, as plain data."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal

from .errors import FileError
from .structure import Frozen

VERSION = 2

Status = Literal["running", "finished", "interrupted", "failed"]


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What one network costs and how good it is; None where it was not measured.

    Attributes:
        macs: multiply-accumulates at batch 1 (not FLOPs).
        params: elements of all parameters, tied ones once.
        activations: peak of live activation elements at batch 1.
        size_bytes: bytes of parameters and persistent buffers.
        latency_ms: median time of one forward pass of the example.
        latency_spread_ms: distance between the quartiles of that time.
        accuracy: the task's metric on the test split, in [0, 1].
    """

    macs: int | None = None
    params: int | None = None
    activations: int | None = None
    size_bytes: int | None = None
    latency_ms: float | None = None
    latency_spread_ms: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch of training.

    Attributes:
        stage: what the epoch was for, in words.
        epoch: counted over the whole run, from 1.
        loss: mean over the training batches.
        accuracy: the task's metric on the validation split, in [0, 1]; None where there is none.
        lr: learning rate at the end of the epoch.
        seconds: training and evaluation together.
    """

    stage: str
    epoch: int
    loss: float
    accuracy: float | None
    lr: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Width:
    """Units of one group before and after, how many tensors it appears in, and which: ``tensor:dim, role``."""

    group: str
    before: int
    after: int
    slots: int
    places: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Point:
    """One network on the way: what it costs, and how good it is on the validation split.

    Attributes:
        stage: which one, in words.
        kind: the dense network, one that was just cut (and mended without training), or one that was trained after.
        macs, params: at batch 1.
        score: the metric on the validation split, in [0, 1].
        accepted: False where it lost too much and the cut was undone.
    """

    stage: str
    kind: Literal["dense", "cut", "trained"]
    macs: int
    params: int
    score: float
    accepted: bool = True


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What one layer costs before and after: MACs at batch 1, and milliseconds where they were measured."""

    name: str
    macs_before: int
    macs_after: int
    ms_before: float | None = None
    ms_after: float | None = None


@dataclass(frozen=True, kw_only=True)
class Density:
    """How many weights of a masked tensor are left.

    Attributes:
        name: of the tensor.
        weights, kept: all of its weights, and those that are not masked.
        dense_bytes: what it takes in a model file: masked weights are zeros there, as large as any number.
        packed_bytes: what a bitmap and the kept weights would take.
    """

    name: str
    weights: int
    kept: int
    dense_bytes: int
    packed_bytes: int


@dataclass(frozen=True, kw_only=True)
class QuantizedLayer:
    """What a layer is quantized to.

    Attributes:
        name: of the layer.
        weights: how many.
        weight_bits, input_bits: of each; None where inputs stay floating-point numbers.
        inputs: whether their grid is ``"static"``, or ``"dynamic"``: found in each call; "" where they have none.
        dense_bytes, packed_bytes: what the weights take as floating-point numbers, and packed in their bits with steps.
        sqnr_db: signal to noise of the layer's output with its own quantization alone, in decibels; None where it was
            trained on its grid: there is nothing left to compare with.
    """

    name: str
    weights: int
    weight_bits: int
    input_bits: int | None
    inputs: Literal["", "static", "dynamic"]
    dense_bytes: int
    packed_bytes: int
    sqnr_db: float | None = None


@dataclass(frozen=True, kw_only=True)
class Binarised:
    """What a layer's weights have become.

    Attributes:
        name: of the tensor.
        weights: how many.
        values: most different values that a filter has: 2 or 3.
        reads: whether the layer reads numbers, or their signs.
    """

    name: str
    weights: int
    values: int
    reads: Literal["numbers", "signs"]


@dataclass(frozen=True, kw_only=True)
class Coded:
    """One network on the way as an encoded file.

    Attributes:
        stage: which one, in words.
        weights, kept: of all tensors of weights, and those that are not zero.
        bits: of the symbol of a weight that is left, by weights, were all of one length; None where weights share none.
        bytes: of the encoded file, as the file system has it.
        dense_bytes: of the dense network's parameters, four each.
        score: the metric on the validation split, in [0, 1].
    """

    stage: str
    weights: int
    kept: int
    bits: float | None
    bytes: int
    dense_bytes: int
    score: float | None = None


@dataclass(frozen=True, kw_only=True)
class CodedTensor:
    """What one tensor of weights is made of, and what it takes in the encoded file.

    Attributes:
        name: of the tensor.
        weights, kept: all of its numbers, and those that are not zero.
        values: how many different ones those are; 0 where they are many.
        bits: of a symbol among as many of one length; of a number where values are many.
        kind, coder: how the file has it.
        bytes: of its stream.
    """

    name: str
    weights: int
    kept: int
    values: int
    bits: int
    kind: str
    coder: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Both networks timed in turns under one set of conditions.

    Attributes:
        conditions: backend, threads, batch and rounds, in words.
        before_ms, after_ms: medians.
        ratio: after / before within a round: (low, median, high), the ends of the median's 95 % interval.
        target_ms: what was asked for; None where nothing was.
    """

    conditions: str
    before_ms: float
    after_ms: float
    ratio: tuple[float, float, float]
    target_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The result in another format, as it was run after it was written.

    Attributes:
        file: name in the run folder; OpenVINO's weights are beside it, with the ending .bin.
        int8: whether weights and activations are in eight bits.
        bytes: of the file, and of the one beside it.
        max_difference: largest absolute difference from what PyTorch answers.
        sqnr_db: signal to noise against PyTorch, in decibels; None where nothing differs.
    """

    file: str
    int8: bool
    bytes: int
    max_difference: float
    sqnr_db: float | None = None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One pass over the test split.

    Attributes:
        examples: how many were read.
        targets_sha256: of all targets in their order: which split it was.
        metrics: ``{network: {metric: value in [0, 1]}}``.
        at: when it was read, ISO 8601 with the time zone.
    """

    examples: int
    targets_sha256: str
    metrics: Mapping[str, Any]
    at: str = ""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that a report needs.

    Attributes:
        name: of the run, also of its folder.
        model, data: the names that the user gave.
        metric: what the scores are of.
        recipe: the effective one, as TOML.
        settings: what of it is not a default, in words.
        environment: versions, machine, threads, seed.
        status: running, finished, interrupted or failed.
        started, finished: ISO 8601 with the time zone; "" while running.
        before, after: measures of the dense network and of the result.
        latency_ratio: after / before, median of the rounds with the ends of its 95 % interval: (low, median, high).
        latencies: every timing of the whole network.
        layers: where MACs and milliseconds went.
        history: epochs in order; those of cuts that were undone too.
        path: the networks on the way from dense to small.
        readings: of the test split: one, at the end.
        splits: ``{split: batches}``.
        ranked_on_train: a criterion read training batches to rank the units.
        resumes: how often the run went on after it had been stopped.
        widths: of every group.
        densities: of every masked tensor of the result.
        coded: what every stage would take as an encoded file, and what the result takes.
        coded_tensors: of the result's encoded file, those of weights.
        quantized: what each quantized layer of the result is quantized to.
        sqnr_db: signal to noise of its outputs where it was quantized without training, in decibels.
        binarised: the tensors that have two or three values.
        exports: the result in other formats.
        frozen: what must not change, and why.
        proof: what was proved about the surgery, in words.
        notes: what the user should know.
        files: ``{name in the folder: bytes}``.
    """

    name: str
    model: str
    data: str
    metric: str = "accuracy"
    recipe: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    status: Status = "running"
    started: str = ""
    finished: str = ""
    before: Measures = Measures()
    after: Measures = Measures()
    latency_ratio: tuple[float, float, float] | None = None
    latencies: tuple[Latency, ...] = ()
    layers: tuple[Layer, ...] = ()
    history: tuple[Epoch, ...] = ()
    path: tuple[Point, ...] = ()
    readings: tuple[Reading, ...] = ()
    splits: Mapping[str, int] = field(default_factory=dict)
    ranked_on_train: bool = False
    resumes: int = 0
    widths: tuple[Width, ...] = ()
    densities: tuple[Density, ...] = ()
    coded: tuple[Coded, ...] = ()
    coded_tensors: tuple[CodedTensor, ...] = ()
    quantized: tuple[QuantizedLayer, ...] = ()
    sqnr_db: float | None = None
    binarised: tuple[Binarised, ...] = ()
    exports: tuple[Exported, ...] = ()
    frozen: tuple[Frozen, ...] = ()
    proof: str = ""
    notes: tuple[str, ...] = ()
    files: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the run as JSON; ``from_json(to_json())`` is the same run."""
        return json.dumps({"espalier_run": VERSION, **asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Run:
        """Read a run.

        Raises:
            FileError: the text is not a run, or a newer version wrote it.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FileError(f"this text is not a run: it is not whole JSON ({error!s:.200})") from error
        if not isinstance(data, dict) or "espalier_run" not in data:
            raise FileError("this text is not a run: it is no JSON object with the entry 'espalier_run'")
        version = data.pop("espalier_run")
        if version != VERSION:
            raise FileError(f"this run has version {version!r:.20}; this Espalier reads version {VERSION}")
        try:
            return _read(cls, data)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise FileError(f"this run is damaged: {error!s:.200}") from error


def _read(kind: Any, data: Any) -> Any:
    """Return ``data`` as the type ``kind``: dataclasses, tuples, mappings, unions with None, and plain values."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return None if data is None else _read(arguments[0], data)
    if is_dataclass(kind):
        return _read_fields(kind, data)
    if origin is tuple:
        items = arguments[:1] * len(data) if arguments[-1] is Ellipsis else arguments
        return tuple(_read(item, value) for item, value in zip(items, data, strict=True))
    if origin is Literal:
        if data not in arguments:
            raise ValueError(f"{data!r} is none of {arguments}")
        return data
    if kind is not Any:
        _check_plain(dict if origin is not None else kind, data)
    return data


def _read_fields(kind: Any, data: Any) -> Any:
    hints = typing.get_type_hints(kind)
    unknown = set(data) - {f.name for f in fields(kind)}
    if unknown:
        raise ValueError(f"{min(unknown)!r} is no field of {kind.__name__}")
    needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    if needed - set(data):
        raise ValueError(f"the field {min(needed - set(data))!r} of {kind.__name__} is missing")
    return kind(**{name: _read(hints[name], value) for name, value in data.items()})


def _check_plain(kind: type, data: Any) -> None:
    """Refuse a value of another type; a whole number is a float, and True is no number."""
    expected = (int, float) if kind is float else kind
    if not isinstance(data, expected) or (isinstance(data, bool) and kind is not bool):
        raise TypeError(f"{data!r:.40} is not {kind}")
