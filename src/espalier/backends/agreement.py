"""Agreement: whether a backend computes what PyTorch does, in numbers.

SQNR = 10 log10( sum reference^2 / sum (reference - result)^2 )  dB
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from .protocol import ExportError, Run, call, tensors

LEAST_SQNR_DB = 60.0  # float32 in another order of additions reaches about 110; a wrong weight stays far below


@dataclass(frozen=True)
class Agreement:
    """How near two computations of the same outputs are.

    Attributes:
        max_difference: largest absolute difference of any element.
        sqnr_db: signal to noise of the worst output, in decibels; infinite where nothing differs.
    """

    max_difference: float
    sqnr_db: float


def compared(reference: Sequence[Tensor], result: Sequence[Tensor]) -> Agreement:
    """Compare outputs one by one.

    Raises:
        ExportError: there are more or fewer, or their shapes differ.
    """
    shapes, others = ([tuple(t.shape) for t in side] for side in (reference, result))
    if shapes != others:
        raise ExportError(f"the exported network returns tensors of shapes {others}, the model {shapes}")
    worst, sqnr = 0.0, math.inf
    for one, other in zip(reference, result, strict=True):
        signal, noise = one.double(), one.double() - other.double()
        if not torch.isfinite(noise).all():
            return Agreement(math.inf, -math.inf)
        worst = max(worst, float(noise.abs().max()) if noise.numel() else 0.0)
        power, error = float(signal.square().sum()), float(noise.square().sum())
        if error > 0.0:
            sqnr = min(sqnr, 10.0 * math.log10(power / error) if power > 0.0 else -math.inf)
    return Agreement(worst, sqnr)


def probe(example: Any) -> Any:
    """Return an example of the same shapes with noise for its floats: zeros would not show a wrong weight."""
    generator = torch.Generator().manual_seed(0)

    def noise(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            return torch.randn(leaf.shape, generator=generator).to(leaf.dtype)
        return leaf

    return tree_map(noise, example)


def check(model: nn.Module, example: Any, run: Run, what: str) -> Agreement:
    """Compare ``run``, which was prepared on ``example``, with the model in eval mode.

    Raises:
        ExportError: they differ by more than rounding does.
    """
    with torch.no_grad():
        reference = tensors(call(copy.deepcopy(model).eval(), example))
    found = compared(reference, run())
    least = LEAST_SQNR_DB if all(t.dtype in (torch.float32, torch.float64) for t in reference) else LEAST_SQNR_DB / 2
    if found.sqnr_db < least:
        raise ExportError(
            f"{what} does not compute what {type(model).__name__} does: SQNR {found.sqnr_db:.1f} dB "
            f"(at least {least:g} is expected), largest difference {found.max_difference:.3g}. Nothing was written"
        )
    return found
