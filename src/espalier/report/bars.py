"""Rows of before and after: widths of the groups, and where the work went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..core import Frozen
from ..core.run import Layer, QuantizedLayer, Run
from .numbers import one_unit, show_bytes, show_count

_TINY = 0.01  # layers without MACs whose share of the time is below this are counted together


@dataclass(frozen=True)
class Bar:
    """One row: a name, two values as text and as shares of the largest, and what belongs to it.

    Attributes:
        name: of the group or layer.
        before, after: with units.
        old, new: in [0, 1].
        more: what is shown on request.
    """

    name: str
    before: str
    after: str
    old: float
    new: float
    more: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Return what a reader sees when pointing at the row."""
        return f"{self.name}: {self.before} before, {self.after} after"


@dataclass(frozen=True)
class Bars:
    """Rows in the network's order.

    Attributes:
        title: what they show.
        rows: one a group or layer.
        note: what was left out, or how it was measured.
    """

    title: str
    rows: tuple[Bar, ...]
    note: str = ""

    @property
    def compact(self) -> bool:
        """Whether there are too many rows to show them all at once."""
        return len(self.rows) > 32


@dataclass(frozen=True)
class Reason:
    """Frozen axes that share a reason."""

    text: str
    axes: tuple[Frozen, ...]


def width_bars(run: Run) -> Bars:
    """Return the units of every group."""
    widest = max((width.before for width in run.widths), default=1) or 1
    rows = tuple(
        Bar(w.group, str(w.before), str(w.after), w.before / widest, w.after / widest, w.places) for w in run.widths
    )
    return Bars("Units a group keeps", rows)


def density_bars(run: Run) -> Bars:
    """Return the weights that every masked tensor keeps."""
    most = max((one.weights for one in run.densities), default=1) or 1
    rows = tuple(
        Bar(d.name, f"{d.weights:,}", f"{d.kept:,}", d.weights / most, d.kept / most, (density(d.kept, d.weights),))
        for d in run.densities
    )
    return Bars("Weights a layer keeps", rows)


def quantized_bars(run: Run) -> Bars:
    """Return what the weights of every quantized layer take, packed in their bits, beside what they took."""
    most = max((one.dense_bytes for one in run.quantized), default=1) or 1
    rows = tuple(
        Bar(
            one.name,
            show_bytes(one.dense_bytes),
            show_bytes(one.packed_bytes),
            one.dense_bytes / most,
            one.packed_bytes / most,
            (_quantized(one),),
        )
        for one in run.quantized
    )
    return Bars("Bytes of a layer's weights", rows)


def quantized_words(run: Run) -> tuple[str, str]:
    """Return how many bits weights have, and what that is worth and costs, in words."""
    weights = {one.name: one for one in run.quantized}.values()
    count = max(sum(one.weights for one in weights), 1)
    bits = sum(one.weights * one.weight_bits for one in weights) / count
    dense, packed = sum(one.dense_bytes for one in weights), sum(one.packed_bytes for one in weights)
    worth = (
        f"model.safetensors holds these {show_bytes(dense)} as floating-point numbers that lie on their grids; packed "
        f"they take {show_bytes(packed)}."
    )
    if run.sqnr_db is not None:
        worth += f" The network's outputs have {run.sqnr_db:.1f} dB of signal to noise against those before."
    return f"{count:,} weights of {bits:.3g} bits", worth


def _quantized(one: QuantizedLayer) -> str:
    inputs = f"inputs {one.input_bits} bits, {one.inputs}" if one.input_bits is not None else "inputs as they were"
    noise = "" if one.sqnr_db is None else f"; {one.sqnr_db:.1f} dB of signal to noise in its output"
    return f"weights {one.weight_bits} bits, {inputs}{noise}"


def density(kept: int, weights: int) -> str:
    """Return a share of weights in words."""
    return f"{100 * kept / max(weights, 1):.3g} % of {weights:,} weights are left"


def sparse_words(run: Run) -> tuple[str, str]:
    """Return how many weights are left, and what that is worth in bytes, in words."""
    kept, weights = sum(one.kept for one in run.densities), sum(one.weights for one in run.densities)
    dense, packed = sum(one.dense_bytes for one in run.densities), sum(one.packed_bytes for one in run.densities)
    worth = (
        f"A model file holds a zero as any number: these {show_bytes(dense)} are in it whole. As a bitmap and the "
        f"weights that are left they would take {show_bytes(packed)}."
    )
    return density(kept, weights), worth


def binary_bars(run: Run) -> Bars:
    """Return what the weights of every binary or ternary tensor take, packed."""
    most = max((one.weights for one in run.binarised), default=1) or 1
    rows = []
    for one in run.binarised:
        bits = max(one.values - 1, 1).bit_length()
        values = "two values" if bits == 1 else "three values"
        words = f"{one.weights:,} weights of {values} a filter; the layer reads {one.reads}"
        before, after = show_bytes(4 * one.weights), show_bytes(-(-bits * one.weights // 8))
        rows.append(Bar(one.name, before, after, one.weights / most, bits * one.weights / 32 / most, (words,)))
    return Bars("Bytes a layer's weights take, packed", tuple(rows))


def layer_bars(run: Run) -> list[Bars]:
    """Return MACs and milliseconds a layer, where they were measured."""
    return [bars for bars in (_macs_bars(run), _time_bars(run)) if bars.rows]


def _macs_bars(run: Run) -> Bars:
    counted = [layer for layer in run.layers if layer.macs_before]
    return Bars("MACs a layer", _rows(counted, [(one.macs_before, one.macs_after) for one in counted], show_count))


def _time_bars(run: Run) -> Bars:
    timed = [
        (layer, (layer.ms_before, layer.ms_after))
        for layer in run.layers
        if layer.ms_before is not None and layer.ms_after is not None
    ]
    total = sum(before for _, (before, _) in timed)
    shown = [(layer, pair) for layer, pair in timed if layer.macs_before or pair[0] > _TINY * total]
    pairs = [pair for _, pair in shown]
    unit, show = one_unit(max((max(pair) for pair in pairs), default=0.0))
    note = "Each layer timed alone within a PyTorch forward pass of one input; the whole network is in the headline."
    if len(shown) < len(timed):
        note += f" {len(timed) - len(shown)} layers that take less than 1 % of the time each are left out."
    return Bars(f"Time a layer, {unit}", _rows([layer for layer, _ in shown], pairs, show), note)


def reasons(frozen: tuple[Frozen, ...]) -> list[Reason]:
    """Return the frozen axes by reason, the commonest first."""
    by_reason: dict[str, list[Frozen]] = {}
    for axis in frozen:
        by_reason.setdefault(axis.reason, []).append(axis)
    return [Reason(text, tuple(axes)) for text, axes in sorted(by_reason.items(), key=lambda item: -len(item[1]))]


def _rows(
    layers: Sequence[Layer], pairs: Sequence[tuple[float, float]], show: Callable[[float], str]
) -> tuple[Bar, ...]:
    most = max((max(pair) for pair in pairs), default=1) or 1
    return tuple(
        Bar(layer.name, show(old), show(new), old / most, new / most)
        for layer, (old, new) in zip(layers, pairs, strict=True)
    )
