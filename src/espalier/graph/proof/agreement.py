"""Agreement: whether a cut model's outputs are what they must be, up to rounding and no further."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...core import ProofError

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3}
TRAIN_TOLERANCE = 1e-4  # batch statistics over the few samples of an example are badly conditioned
ILL_CONDITIONED = 1e-5  # beyond the tolerance, up to here, a gap may be what a rounding of the input alone causes
Shaken = Callable[[int, Tensor, float], float]  # (output number, output, magnitude) -> relative change


def agree(
    found: Sequence[Tensor],
    expected: Sequence[Tensor],
    dtype: torch.dtype,
    what: str,
    shaken: Shaken | None = None,
    tolerance: float | None = None,
) -> float:
    """Compare the outputs of a cut model with what they must be; return the largest difference.

    It is a share of the magnitude of the output that it is found in.

    Raises:
        ProofError: another number of outputs, shape, NaN or value; or nothing finite to compare.
    """
    if len(found) != len(expected):
        raise ProofError(f"the cut model returns {len(found)} tensors, {what} {len(expected)}")
    compared, largest = 0, 0.0
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        if a.shape != b.shape:
            raise ProofError(f"output {i} has shape {tuple(a.shape)}, that of {what} {tuple(b.shape)}")
        if not torch.equal(a.isnan(), b.isnan()):
            raise ProofError(f"output {i} has other NaNs than {what}")
        compared += int(b.isfinite().sum())
        if not (a.is_floating_point() or a.is_complex()):
            _whole_numbers(i, a, b, dtype, what)
            continue
        a, b = a.nan_to_num(0, 0, 0), b.nan_to_num(0, 0, 0)
        scale = _magnitude(a, b)
        gap = float((a - b).abs().max()) / scale if scale else 0.0
        if not gap <= (tolerance or TOLERANCE[dtype]) and not (
            shaken and gap < ILL_CONDITIONED and gap <= 100 * shaken(i, a, scale)
        ):
            raise ProofError(f"output {i} differs from {what} by {gap:.1e} of its magnitude ({scale:.1e}, {dtype})")
        largest = max(largest, gap)
    if not compared:
        raise ProofError(
            "no finite number could be compared: give an example that is not empty and holds no NaN or infinity"
        )
    return largest


def _whole_numbers(i: int, a: Tensor, b: Tensor, dtype: torch.dtype, what: str) -> None:
    """Compare integers and booleans: equal in float64; in float32 a few may tip over at a near tie."""
    share = float((a != b).double().mean()) if a.numel() else 0.0
    if share > (0.0 if dtype == torch.float64 else 0.01):
        raise ProofError(f"output {i}, of whole numbers, differs from {what} in {share:.1%} of its entries")


def _magnitude(a: Tensor, b: Tensor) -> float:
    """Return the scale of the entries that differ at all: masks of -1e9, equal on both sides, must not hide a gap."""
    size = b.abs()[a != b]
    if size.numel() == 0:
        return 0.0
    return min(float(size.max()), 1e3 * float(size.median())) + 1e-30
