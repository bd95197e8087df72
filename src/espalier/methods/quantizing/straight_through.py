"""Quantization-aware training, plain: the forward pass rounds, the gradient does as if it had not.

    w_q = s clip(round(w / s), lowest, highest),   dL/dw = dL/dw_q  where nothing was clipped
    s follows the largest weight of a channel;  grids of inputs stay as they were calibrated

Source: Jacob et al., CVPR 2018, arXiv:1712.05877, section 3; Bengio et al., arXiv:1308.3432, for the gradient.
Differs: (1) a step ends where the error was least when training began, as a share of the largest weight: at 8 bits
that is nearly all of it; (2) ranges of inputs are calibrated on a training batch and stay, in the place of a moving
average of the least and the largest number; (3) batch norms are not folded while training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from ...graph.grids import WeightGrid
from ...transforms.layers import Layer
from ..on_grids import Held, OnGrids
from ..registry import HYPERPARAMETERS

_SHARE = "share/"


@dataclass(frozen=True, kw_only=True, config=HYPERPARAMETERS)
class StraightThrough(OnGrids):
    """Train weights whose steps follow their largest."""

    weight_bits: int = Field(default=4, ge=2, le=16)
    input_bits: int | None = Field(default=4, ge=2, le=16)
    ends_bits: int | None = Field(default=8, ge=2, le=16)

    def opened(self, state: Held, layers: Mapping[str, Layer]) -> None:
        """Take note of where the steps end, as shares of the largest weights."""
        for name, _, real, grid in state.each():
            state.more[_SHARE + name] = grid.step / largest(real, grid).clamp_min(torch.finfo(real.dtype).tiny)

    def moved(self, state: Held, lr: float) -> None:
        """Let the steps follow."""
        for name, _, real, grid in list(state.each()):
            step = state.more[_SHARE + name].to(real.device) * largest(real, grid)
            state.grids[name] = replace(grid, step=torch.where(step > 0, step, grid.step))


def largest(real: Tensor, grid: WeightGrid) -> Tensor:
    """Return the largest magnitude of each channel, in the shape of the steps."""
    rows = real.movedim(grid.axis, 0).reshape(grid.step.numel(), -1)
    return rows.abs().amax(1).reshape(grid.step.shape).to(grid.step.dtype)
