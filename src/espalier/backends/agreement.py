"""Agreement: whether a backend computes what PyTorch does, in numbers.

SQNR = 10 log10( sum reference^2 / sum (reference - result)^2 )  dB
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from .protocol import ExportError, Prepared, Run, call, tensors

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
    reference = _answers(model, [example])
    found = compared(reference, run())
    least = LEAST_SQNR_DB if all(t.dtype in (torch.float32, torch.float64) for t in reference) else LEAST_SQNR_DB / 2
    if found.sqnr_db < least:
        raise ExportError(
            f"{what} does not compute what {type(model).__name__} does: SQNR {found.sqnr_db:.1f} dB "
            f"(at least {least:g} is expected), largest difference {found.max_difference:.3g}. Nothing was written"
        )
    return found


def check_int8(
    model: nn.Module, inputs: Sequence[Any], run: Prepared, *, least_db: float, what: str, blame: Callable[[], str]
) -> Agreement:
    """Compare a network in int8 with the model in eval mode, over all ``inputs`` together.

    Args:
        blame: says which layer is to blame; called where the result is refused.

    Raises:
        ExportError: less signal to noise than ``least_db``.
    """
    count = len(_answers(model, inputs[:1]))
    answers = [run.on(one) for one in inputs]
    result = [torch.stack([one[i] for one in answers]) for i in range(count)] if {*map(len, answers)} == {count} else []
    reference = _answers(model, inputs)
    reference = [torch.stack(reference[i::count]) for i in range(count)]
    found = compared(reference, result)
    if found.sqnr_db < least_db:
        raise ExportError(
            f"{what} in int8 answers too far from {type(model).__name__}: SQNR {found.sqnr_db:.1f} dB (at least "
            f"{least_db:g} is asked for), largest difference {found.max_difference:.3g}. {blame()} Nothing was "
            "written. Try the other scheme (static or dynamic), more or other calibration inputs, or training with "
            "quantization; or ask for fewer dB"
        )
    return found


def _answers(model: nn.Module, inputs: Sequence[Any]) -> list[Tensor]:
    """Return the output tensors of every input, one input after the other."""
    ready = copy.deepcopy(model).eval()
    with torch.no_grad():
        return [tensor for one in inputs for tensor in tensors(call(ready, one))]
