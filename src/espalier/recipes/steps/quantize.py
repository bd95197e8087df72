"""The step that puts a network on grids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from .base import Step
from .training import Training

if TYPE_CHECKING:
    from ...methods import Method
    from ...transforms import Quantization

Bits = Annotated[int, Field(ge=2, le=16)]
Ratio = Annotated[float, Field(gt=0, le=1)]

# What belongs to one way alone; given with the other, it would not be heeded.
_CALIBRATED = ("calibration", "percentile", "correct_biases", "rounding", "rounding_steps", "min_sqnr_db")
_BUDGETS = ("size_bytes", "size_ratio", "bit_operations_ratio")


class Quantize(Step):
    """Put weights and layers' inputs on grids of few bits; nothing may change the network's weights after it.

        post_training   calibrate on a few batches, without training
        lsq             train the weights and the grids' steps                  (arXiv:1902.08153)
        ste             train the weights, whose gradients pass straight through (arXiv:1712.05877)

    The network stays an ordinary module: ``encode`` writes its integers, ``export`` gives them to a runtime.

    Costs: post_training a few passes over ``batches``; an epoch of lsq or ste about twice one of ``train``.
    """

    kind: Literal["quantize"] = "quantize"
    method: Literal["post_training", "lsq", "ste"] = "post_training"
    """how"""
    weight_bits: Bits = 8
    """of every layer's weights; with lsq and ste the first and the last layer have 8, unless ``bits`` names them"""
    input_bits: Bits = 8
    """of the inputs of convolutions and linear layers"""
    bits: dict[str, Bits] = {}
    """{pattern: bits} of single layers, weights and inputs; * and ? match; where several match, the last"""
    keep: tuple[str, ...] = ()
    """names of layers that stay as they are; * and ? match"""
    inputs: Literal["auto", "static", "dynamic", "none"] = "auto"
    """grids of inputs: calibrated once (static), found in each call for every token (dynamic, as transformers need),
    auto: dynamic for linear layers on tokens and static elsewhere; or none, which quantizes weights alone"""
    batches: int = Field(default=8, ge=1)
    """training batches that are looked at"""
    calibration: Literal["minmax", "percentile", "mse"] = "mse"
    """of post_training: the range of a static grid: all that was seen, all but outliers, the one of least error"""
    percentile: float = Field(default=99.99, gt=50, le=100)
    """of calibration = 'percentile': the share of numbers that the range covers"""
    correct_biases: bool = True
    """of post_training: take off the biases what quantization adds to the means, where that leaves less noise"""
    rounding: Literal["nearest", "adaround"] = "nearest"
    """of post_training: adaround learns which weights to round up (arXiv:2004.10568); it takes minutes"""
    rounding_steps: int = Field(default=500, ge=1)
    """of adaround, for each layer"""
    min_sqnr_db: float = Field(default=10.0)
    """of post_training: a network whose outputs have less signal to noise is refused, with the noisiest layers named"""
    size_bytes: int | None = Field(default=None, ge=1)
    """of post_training: bits are chosen a layer, from ``choices``, so that the parameters, packed, take no more"""
    size_ratio: Ratio | None = None
    """the same, as a share of the parameters' bytes now"""
    bit_operations_ratio: Ratio | None = None
    """bits are chosen so that MACs x weight bits x input bits are no more than this share of those at 32 bits"""
    choices: tuple[Bits, ...] = (2, 3, 4, 5, 6, 8)
    """bits that a budget chooses from"""
    finetune: Training | None = None
    """of lsq and ste: the training; a rate of a tenth of the network's own suits"""

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        wrong = list(self._mistakes())
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _mistakes(self) -> Iterator[str]:
        """Yield what does not go together."""
        trains = self.method != "post_training"
        given = self.model_fields_set
        for name in (*_CALIBRATED, *_BUDGETS, "choices"):
            if trains and name in given and getattr(self, name) != Quantize.model_fields[name].default:
                yield f"{name} is for method = 'post_training' (it is {self.method!r})"
        if trains and (self.finetune is None or not self.finetune.epochs):
            yield f"method = {self.method!r} trains: give finetune with at least one epoch"
        if not trains and self.finetune is not None:
            yield "method = 'post_training' does not train: leave finetune out, or take method = 'lsq'"
        if self.finetune is not None and self.finetune.ema_decay is not None:
            yield "ema_decay: an average of numbers on grids lies on no grid; leave it out of finetune"
        yield from self._budget_mistakes()

    def _budget_mistakes(self) -> Iterator[str]:
        budgets = [name for name in _BUDGETS if getattr(self, name) is not None]
        if len(budgets) > 1:
            yield f"one budget decides the bits: give one of {' and '.join(budgets)}"
        if budgets and self.bits:
            yield f"{budgets[0]} decides the bits, and bits says them: give one of both"
        if "bit_operations_ratio" in budgets and self.inputs == "none":
            yield "bit_operations_ratio counts the inputs' bits, and inputs = 'none' gives them none"
        if not self.choices:
            yield "choices holds no bits"

    @property
    def budgeted(self) -> bool:
        """Whether a budget decides the bits."""
        return any(getattr(self, name) is not None for name in _BUDGETS)

    def settings(self) -> Quantization:
        """Return how, as the engine takes it."""
        from ...transforms import AdaRound, Quantization  # torch is imported for those who quantize, not for `--help`

        return Quantization(
            weight_bits=self.weight_bits,
            input_bits=None if self.inputs == "none" else self.input_bits,
            bits=self.bits,
            keep=self.keep,
            inputs="auto" if self.inputs == "none" else self.inputs,
            calibration=self.calibration,
            percentile=self.percentile,
            batches=self.batches,
            correct_biases=self.correct_biases,
            rounding=AdaRound(steps=self.rounding_steps) if self.rounding == "adaround" else None,
            min_sqnr_db=self.min_sqnr_db,
        )

    def trainer(self) -> Method:
        """Return the method of lsq and ste."""
        from ...methods.quantizing.learned_step_size import LearnedStepSize
        from ...methods.quantizing.straight_through import StraightThrough

        kind = LearnedStepSize if self.method == "lsq" else StraightThrough
        return kind(
            weight_bits=self.weight_bits,
            input_bits=None if self.inputs == "none" else self.input_bits,
            bits=dict(self.bits),
            keep=self.keep,
            inputs="auto" if self.inputs == "none" else self.inputs,
            ends_bits=8 if self.weight_bits < 8 else None,
        )
