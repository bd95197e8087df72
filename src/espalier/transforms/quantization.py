"""Post-training quantization: from a trained network and a few batches to one whose numbers lie on grids.

    copy ──fold batch norms──▶ dense ──calibrate──▶ grids ──round──▶ weights on them ──correct biases──▶ result
                                 └──────────────── noise of each layer, and of the network ◀──────────────┘

The result is an ordinary network of the same class. A result that is mostly noise is refused, with the layers named.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..core import KindError, ModelError, QuantizationError
from ..core.run import QuantizedLayer
from ..graph import trace
from ..graph.grids import Dynamic, Grids, Input, WeightGrid, grids_of, put_grids_, unquantize_
from ..graph.kinds import check_model
from ..graph.recording.capture import run_model
from ..graph.recording.running import on_device
from ..graph.sharing import sharing_of, unshare_
from .adaround import AdaRound, adaround
from .bias_correction import correct_biases_
from .calibration import How, Samples, input_grid, weight_grid
from .fold import fold_
from .layers import Layer, chosen, layers, matches, named
from .noise import layer_powers, network_power, outputs_of

_SAMPLES = 2  # of the example that is traced


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """How a network is quantized.

    Attributes:
        weight_bits: of every layer, 2 to 16.
        input_bits: of the inputs of convolutions and linear layers; None leaves them floating-point numbers.
        bits: ``{pattern: bits}`` of single layers, of weights and inputs; * and ? match, the last that does.
        keep: layers that stay as they are; * and ? match.
        inputs: ``"static"`` grids are calibrated once; ``"dynamic"`` ones are found in each call, for every token;
            ``"auto"``: dynamic for linear layers on sequences of tokens, as in transformers, static elsewhere.
        calibration: which range a static grid covers; see ``calibration``.
        percentile: of ``calibration="percentile"``.
        weight_range: whether a channel's grid ends at its largest weight, or where the error is least.
        batches: how many of the training batches are looked at.
        fold: fold batch norms into the layers before them.
        correct_biases: take off the biases what quantization adds to the means of layers' outputs, where the network
            has less noise for it: before a ReLU a better mean may be a worse output.
        rounding: settings of AdaRound; None rounds to the nearest.
        min_sqnr_db: a network whose outputs have less signal to noise is refused. 10 dB is noise of a third of the
            signal; a static grid on a transformer's tokens gives 5 to 9. It can be lowered.
    """

    weight_bits: int = 8
    input_bits: int | None = 8
    bits: Mapping[str, int] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    inputs: Literal["auto", "static", "dynamic"] = "auto"
    calibration: How = "mse"
    percentile: float = 99.99
    weight_range: Literal["max", "mse"] = "mse"
    batches: int = 8
    fold: bool = True
    correct_biases: bool = True
    rounding: AdaRound | None = None
    min_sqnr_db: float = 10.0

    def of(self, layer: Layer) -> tuple[int, int | None]:
        """Return the bits of a layer's weights and inputs."""
        own = [bits for pattern, bits in self.bits.items() if matches(layer, pattern)]
        if not own:
            return self.weight_bits, self.input_bits
        return own[-1], None if self.input_bits is None else own[-1]


@dataclass(frozen=True)
class Quantized:
    """What quantization came to.

    Attributes:
        model: a new network of the same class, which carries its grids.
        layers: what each is quantized to, and its noise.
        sqnr_db: of the network's outputs.
        notes: what the user should know.
    """

    model: nn.Module
    layers: tuple[QuantizedLayer, ...]
    sqnr_db: float
    notes: tuple[str, ...] = ()


@dataclass(eq=False)
class Prepared:
    """A network that is ready for its grids, and what was seen of it.

    Attributes:
        dense: folded, without grids.
        layers: to quantize.
        norms: ``{layer: batch norm that alone reads its output}``.
        batches: of inputs.
        samples: ``{layer: numbers that it was given}`` of those that ran.
        tokens: linear layers that ran on more than a batch of vectors.
        outputs: of ``dense``.
        notes: what the user should know.
    """

    dense: nn.Module
    layers: list[Layer]
    norms: dict[str, str]
    batches: list[Any]
    samples: dict[str, Samples]
    tokens: set[str]
    outputs: list[list[Tensor]]
    notes: list[str]


def quantize(model: nn.Module, data: Any, how: Quantization = Quantization()) -> Quantized:
    """Return a network whose weights lie on grids, and whose layers' inputs are put on grids as it runs.

    Args:
        model: any trained network; it is untouched.
        data: a task, whose training batches are looked at, or batches themselves: pairs (inputs, targets).
        how: bits, and how grids are chosen.

    Raises:
        KindError: the model is none, or the data no batches.
        UnknownNameError: a pattern that matches nothing.
        ModelError: the model does not run on the batches, or has no layer to quantize.
        QuantizationError: the result would be mostly noise; the message names the noisiest layers, and what to do.
    """
    check_model("quantize", model)
    ready = prepare(model, inputs_of(data, how.batches), how)
    grids = grids_for(ready, how)
    return finish(ready, grids, how)


def inputs_of(data: Any, count: int) -> list[Any]:
    """Return the inputs of the first batches of a task, or of batches.

    Raises:
        KindError: they are no pairs.
    """
    batches: Iterable[Any] = getattr(data, "train", data)
    try:
        found = [pair[0] for pair in itertools.islice(batches, count)]
    except (TypeError, KeyError, IndexError) as error:
        raise KindError("quantize takes a task, or batches as pairs (inputs, targets)") from error
    if not found:
        raise KindError("quantize looks at batches, and there are none")
    return found


def prepare(model: nn.Module, batches: list[Any], how: Quantization) -> Prepared:
    """Fold a copy of a network, and look at what its layers are given."""
    dense = unquantize_(copy.deepcopy(model).eval())
    found, notes = chosen(dense, how.keep), []
    for pattern in how.bits:
        named(dense, pattern)
    if sharing_of(dense):
        unshare_(dense)
        notes.append("weights that shared values lie on grids now, a step a channel, and share them no longer")
    if not found:
        raise ModelError("nothing in this model can be quantized: it has no convolution and no linear layer")
    norms: dict[str, str] = {}
    if how.fold:
        try:
            norms = fold_(dense, trace(dense, _few(batches[0])))
        except ModelError as error:
            notes.append(f"batch norms are not folded: the model cannot be traced ({error!s:.100})")
    samples, tokens, outputs = _observed(dense, found, batches)
    return Prepared(dense, found, norms, batches, samples, tokens, outputs, notes)


def grids_for(ready: Prepared, how: Quantization) -> Grids:
    """Return the grids of a network's weights and inputs."""
    inputs: dict[str, Input] = {}
    weights: dict[str, WeightGrid] = {}
    for layer in ready.layers:
        weight_bits, input_bits = how.of(layer)
        tensor = ready.dense.get_parameter(layer.weight)
        if layer.weight not in weights:
            weights[layer.weight] = weight_grid(tensor, weight_bits, layer.axis, how.weight_range)
        if input_bits is not None and layer.path in ready.samples:
            inputs[layer.path] = _input(ready, layer, input_bits, how)
    return Grids(inputs, weights)


def finish(ready: Prepared, grids: Grids, how: Quantization) -> Quantized:
    """Put a network on its grids, and say how much noise that is.

    Raises:
        QuantizationError: too much.
    """
    rounded = nearest(ready, grids) if how.rounding is None else _adaround(ready, grids, how.rounding)
    result = copy.deepcopy(ready.dense)
    with torch.no_grad():
        for name, value in rounded.items():
            result.get_parameter(name).copy_(value)
    put_grids_(result, grids)
    sqnr_db = network_power(ready.outputs, result, ready.batches).db
    if how.correct_biases:
        corrected = copy.deepcopy(result)
        correct_biases_(corrected, ready.dense, ready.layers, ready.norms, ready.batches)
        better = network_power(ready.outputs, corrected, ready.batches).db
        result, sqnr_db = (corrected, better) if better > sqnr_db else (result, sqnr_db)
    powers = layer_powers(ready.dense, ready.layers, rounded, grids.inputs, ready.batches)
    rows = tuple(_row(ready.dense, layer, grids, powers[layer.path].db) for layer in ready.layers)
    if sqnr_db < how.min_sqnr_db:
        raise QuantizationError(_advice(rows, sqnr_db, how))
    return Quantized(result, rows, sqnr_db, tuple(ready.notes))


def nearest(ready: Prepared, grids: Grids) -> dict[str, Tensor]:
    """Return ``{tensor: the nearest numbers on its grid}``."""
    found = {}
    for name, grid in grids.weights.items():
        tensor = ready.dense.get_parameter(name).detach()
        found[name] = grid.value(grid.integers(tensor), tensor.dtype)
    return found


def _adaround(ready: Prepared, grids: Grids, settings: AdaRound) -> dict[str, Tensor]:
    return adaround(ready.dense, ready.layers, grids, ready.batches, settings)


def _few(inputs: Any) -> Any:
    return inputs[:_SAMPLES] if isinstance(inputs, Tensor) else inputs


def _input(ready: Prepared, layer: Layer, bits: int, how: Quantization) -> Input:
    if how.inputs == "dynamic" or how.inputs == "auto" and layer.path in ready.tokens:
        return Dynamic(bits=bits)
    return input_grid(ready.samples[layer.path], bits, how.calibration, percentile=how.percentile)


@torch.no_grad()
def _observed(
    dense: nn.Module, layers: Sequence[Layer], batches: Sequence[Any]
) -> tuple[dict[str, Samples], set[str], list[list[Tensor]]]:
    """Run a network, and return what its layers were given, which of them see tokens, and its outputs."""
    samples: dict[str, Samples] = {}
    tokens: set[str] = set()

    def look(number: int, layer: Layer, args: Any, kwargs: Any) -> None:
        x = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(x, Tensor) and x.is_floating_point():
            samples.setdefault(layer.path, Samples(number)).add(x)
            if layer.out_axis == -1 and x.dim() > 2:
                tokens.add(layer.path)

    handles = [
        dense.get_submodule(layer.path).register_forward_pre_hook(
            lambda module, args, kwargs, at=(number, layer): look(*at, args, kwargs), with_kwargs=True
        )
        for number, layer in enumerate(layers)
        if layer.out_axis is not None
    ]
    try:
        run_model(dense, on_device(batches[0], dense), None)
    except (RuntimeError, TypeError, ValueError, LookupError) as error:
        raise ModelError(f"the model does not run on the batches that it is quantized with: {error}") from error
    else:
        samples.clear()
        return samples, tokens, outputs_of(dense, batches)
    finally:
        for handle in handles:
            handle.remove()


def rows_of(model: nn.Module) -> list[QuantizedLayer]:
    """Return what each layer of a quantized model is quantized to; nothing says how noisy that is."""
    grids = grids_of(model)
    return [_row(model, layer, grids, None) for layer in layers(model) if layer.weight in grids.weights]


def _row(model: nn.Module, layer: Layer, grids: Grids, db: float | None) -> QuantizedLayer:
    grid, made = grids.weights[layer.weight], grids.inputs.get(layer.path)
    tensor = model.get_parameter(layer.weight)
    return QuantizedLayer(
        name=layer.path,
        weights=tensor.numel(),
        weight_bits=grid.bits,
        input_bits=None if made is None else made.bits,  # type: ignore[union-attr]
        inputs="" if made is None else "dynamic" if isinstance(made, Dynamic) else "static",
        dense_bytes=tensor.numel() * tensor.element_size(),
        packed_bytes=-(-tensor.numel() * grid.bits // 8) + grid.step.numel() * grid.step.element_size(),
        sqnr_db=None if db is None else round(db, 2),
    )


def _advice(rows: Sequence[QuantizedLayer], sqnr_db: float, how: Quantization) -> str:
    worst = sorted(rows, key=lambda row: row.sqnr_db or 0.0)[:3]
    named = ", ".join(f"{row.name} ({row.sqnr_db:.1f} dB)" for row in worst)
    ways = []
    if any(row.inputs == "static" for row in worst):
        ways.append("inputs = 'dynamic', a grid for each call, which is what tokens of a transformer need")
        if how.calibration == "minmax":
            ways.append("calibration = 'mse'")
    ways += [f"more bits for them, or keep = {[worst[0].name]!r}", "training with its grids (method = 'lsq')"]
    return (
        f"the quantized network's outputs have {sqnr_db:.1f} dB of signal to noise, and {how.min_sqnr_db:g} are asked "
        f"for. The noisiest layers: {named}. What helps: {'; '.join(ways)}. min_sqnr_db = {max(sqnr_db - 1, 0):.0f} "
        "takes the network as it is"
    )
