"""Calibration: from the numbers that a layer is given to the grid of its inputs, and from weights to their steps.

    minmax        from the least to the largest number that was seen
    percentile    without the outermost share of them
    mse           the range whose grid is nearest to them: sum (x - q(x))^2 is least over ranges that shrink

*Source*: Nagel et al., A White Paper on Neural Network Quantization, 2021, arXiv:2106.08295, section 3.1.
*Differs*: (1) for percentile and mse, what was seen is a sample of at most 2^15 numbers a layer.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..core import GridError
from ..graph.grids import Grid, WeightGrid
from ..graph.weight_grids import step_type

How = Literal["minmax", "percentile", "mse"]
_PER_CALL, _LARGEST_SAMPLE = 1 << 13, 1 << 15
_RANGES = 64  # shares of a range that mse tries
_LEAST_SHARE = {2: 0.2, 3: 0.25, 4: 0.3}  # few integers: much is clipped at the best; else this is far from it
_TINY = float(torch.finfo(torch.float32).tiny)


class Samples:
    """Numbers that a layer was given: the least and the largest of all, and some of them by chance.

    Args:
        seed: of the chance.
    """

    def __init__(self, seed: int = 0) -> None:
        self.low = self.high = 0.0
        self._parts: list[Tensor] = []
        self._generator = torch.Generator().manual_seed(seed)

    def add(self, x: Tensor) -> None:
        """Take note of an input.

        Raises:
            GridError: it holds NaN or an infinity.
        """
        if not x.numel():
            return
        flat = x.detach().float().reshape(-1).cpu()
        low, high = (float(one) for one in flat.aminmax())
        if not torch.tensor([low, high]).isfinite().all():
            raise GridError("the numbers that a grid is calibrated on hold NaN or an infinity")
        self.low, self.high = min(self.low, low), max(self.high, high)
        drawn = torch.randint(len(flat), (min(len(flat), _PER_CALL),), generator=self._generator)
        self._parts.append(flat[drawn])

    @property
    def numbers(self) -> Tensor:
        """The sample."""
        whole = torch.cat(self._parts)
        if len(whole) <= _LARGEST_SAMPLE:
            return whole
        generator = torch.Generator().manual_seed(len(whole))
        return whole[torch.randperm(len(whole), generator=generator)[:_LARGEST_SAMPLE]]


def input_grid(samples: Samples, bits: int, how: How, *, percentile: float = 99.99) -> Grid:
    """Return the grid of a layer's inputs: unsigned integers, with zero on the grid.

    Args:
        samples: what the layer was given.
        bits: 2 to 16.
        how: which range it covers.
        percentile: of the numbers above zero, and of those below, that the range covers.
    """
    low, high = samples.low, samples.high
    if how == "percentile":
        low, high = _percentile(samples, percentile)
    elif how == "mse":
        low, high = _nearest_range(samples.numbers, bits, low, high)
    return _between(low, high, bits)


def weight_grid(weight: Tensor, bits: int, axis: int | None, how: Literal["max", "mse"]) -> WeightGrid:
    """Return the grid of a weight, with a step for each position of ``axis``, or one for all where it is None.

        max    step = max |w| / (2^(bits-1) - 1)
        mse    the share of that step whose grid is nearest to the weights

    Args:
        weight: any shape.
        bits: 2 to 16.
        axis: the channels' dimension.
        how: which.
    """
    own = weight.detach().to(step_type(weight.dtype))
    rows = own.reshape(1, -1) if axis is None else own.movedim(axis, 0).reshape(own.shape[axis], -1)
    highest = (1 << bits - 1) - 1
    widest = rows.abs().amax(1).clamp_min(_TINY * highest * 2) / highest if rows.numel() else rows.new_ones(len(rows))
    step = widest if how == "max" else _nearest_step(rows, widest, bits)
    return WeightGrid(bits=bits, step=step[0] if axis is None else step.contiguous(), axis=axis or 0)


def _nearest_step(rows: Tensor, widest: Tensor, bits: int) -> Tensor:
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    best, least = widest.clone(), torch.full_like(widest, torch.inf)
    for share in _shares(bits):
        step = (widest * share).clamp_min(_TINY)[:, None]
        error = (rows / step).round_().clamp_(low, high).mul_(step).sub_(rows).square_().sum(1)
        better = error < least
        best, least = torch.where(better, step[:, 0], best), torch.where(better, error, least)
    return best


def _shares(bits: int) -> list[float]:
    """Return the shares of the widest step that are tried, one first: at equal errors nothing is clipped."""
    count = _RANGES if bits < 7 else _RANGES // 4
    least = _LEAST_SHARE.get(bits, 0.4 if bits < 7 else 0.8)
    return torch.linspace(1.0, least, count, dtype=torch.float64).tolist()


def _percentile(samples: Samples, percentile: float) -> tuple[float, float]:
    numbers, share = samples.numbers, percentile / 100
    below, above = numbers[numbers < 0], numbers[numbers > 0]
    low = float(below.quantile(1 - share)) if len(below) else 0.0
    return low, float(above.quantile(share)) if len(above) else 0.0


def _nearest_range(numbers: Tensor, bits: int, low: float, high: float) -> tuple[float, float]:
    """Return the range whose grid is nearest: both ends shrink together first, and then each alone."""
    shares = _shares(bits if bits < 7 else 6)
    low, high = _best(numbers, bits, [(low * share, high * share) for share in shares])
    low, high = _best(numbers, bits, [(low, high * share) for share in shares] if high > 0 else [(low, high)])
    return _best(numbers, bits, [(low * share, high) for share in shares] if low < 0 else [(low, high)])


def _best(numbers: Tensor, bits: int, ranges: list[tuple[float, float]]) -> tuple[float, float]:
    errors = [float((_between(*one, bits).of(numbers) - numbers).square_().sum(dtype=torch.float64)) for one in ranges]
    return ranges[errors.index(min(errors))]


def _between(low: float, high: float, bits: int) -> Grid:
    """Return the grid of unsigned integers from ``low`` <= 0 to ``high`` >= 0; of step 1 where both are 0."""
    highest = (1 << bits) - 1
    step = (high - low) / highest
    if step < _TINY * 2:
        return Grid(bits=bits, step=1.0)
    return Grid(bits=bits, step=step, zero_point=min(max(round(-low / step), 0), highest))
