"""What an int8 export is given: calibration, scheme, and how good it has to be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from ..protocol import ExportError

Scheme = Literal["auto", "static", "dynamic"]

LEAST_SQNR_DB = 15.0
_CHECKED = 16  # inputs that are kept from calibration for the comparison with PyTorch
_MOST_CHECKED_SHARE = 0.25


@dataclass(frozen=True, kw_only=True, eq=False)
class Int8:
    """Weights in int8, one step a channel, and activations in uint8.

    Attributes:
        batches: inputs as the network will see them (training data, never the test split), of any batch size: tensors,
            or what ``export``'s example is; a list, or what can be iterated anew. Some of the last are kept for the
            comparison with PyTorch.
        samples: inputs to calibrate on, at most.
        scheme: ``static`` fixes the ranges of activations by calibration; ``dynamic`` finds them anew in every run, for
            the inputs of linear layers only; ``auto`` is dynamic for networks with attention or recurrent layers, whose
            ranges outliers rule, and static for others.
        least_sqnr_db: a result with less signal to noise against PyTorch is refused: at 15 dB the noise is 18 % of the
            outputs' root mean square.
    """

    batches: Iterable[Any] = ()
    samples: int = 128
    scheme: Scheme = "auto"
    least_sqnr_db: float = LEAST_SQNR_DB


def split(settings: Int8, example: Any) -> tuple[list[Any], list[Any]]:
    """Return the inputs to calibrate on and those to compare on, each of the example's batch size.

    Raises:
        ExportError: there are none, or they are fewer than one batch of the example.
    """
    size = batch_of(example)
    count = max(1, -(-settings.samples // size))
    checked = max(1, min(_CHECKED // size, int(count * _MOST_CHECKED_SHARE)))
    found: list[Any] = []
    for one in pieces(settings.batches, size):
        found.append(one)
        if len(found) == count + checked:
            break
    if not found:
        raise ExportError(
            f"int8 needs inputs to calibrate on, at least {size} (the example's batch): give Int8(batches=...), a few "
            "batches of training data"
        )
    kept = max(1, min(checked, len(found) // 4)) if len(found) > 1 else 0
    return found[: len(found) - kept], found[len(found) - kept :] or found


def batch_of(example: Any) -> int:
    """Return the first dimension of an example's first tensor that has one; 1 where none has."""
    return next((len(leaf) for leaf in _tensors(example) if leaf.ndim), 1)


def pieces(batches: Iterable[Any], size: int) -> Iterator[Any]:
    """Yield the batches' rows, ``size`` at a time; a last piece that is smaller is left out."""
    for batch in batches:
        rows = batch_of(batch)
        for start in range(0, rows - size + 1, size):
            yield tree_map(partial(_rows, rows=rows, part=slice(start, start + size)), batch)


def _rows(leaf: Any, rows: int, part: slice) -> Any:
    if isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == rows:
        return leaf[part].detach().cpu().contiguous()
    return leaf


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor)]
