"""Masks of structural operators that cannot simply run on masks: spectra, complex numbers, tables, writes, sequences.

Each function runs one operator of a masked replay and returns its result and the result's mask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..axes.rules.pointwise import FAKE_QUANTIZE
from ..recording.execute import execute
from ..recording.record import Op, Ref, bind, tensor_refs

if TYPE_CHECKING:
    from .masked import MaskedReplay


def embedding(replay: MaskedReplay, op: Op, args: tuple, kwargs: dict) -> tuple[Tensor, Tensor]:
    """Rows of the masked table."""
    return execute(op, args, kwargs), execute(op, (replay.mask_of(op, "weight"), *args[1:]), kwargs)


def embedding_bag(replay: MaskedReplay, op: Op, args: tuple, kwargs: dict) -> tuple[Any, Any]:
    """A column of the table is kept or not, whatever the bag."""
    result = list(execute(op, args, kwargs))
    columns = replay.mask_of(op, "weight").amax(0)
    return result, [columns.expand(result[0].shape), *(None for _ in result[1:])]


def same(replay: MaskedReplay, op: Op, args: tuple, kwargs: dict) -> tuple[Any, Tensor]:
    """What is kept stays where it is: the first operand's mask."""
    return execute(op, args, kwargs), replay.mask_operand(Ref(op.refs()[0]))


def places(replay: MaskedReplay, op: Op, args: tuple, kwargs: dict) -> tuple[Tensor, None]:
    """Places to sample at: no channels."""
    return execute(op, args, kwargs), None


def spectrum(replay: MaskedReplay, op: Op, args: tuple, kwargs: dict) -> tuple[Tensor, Tensor]:
    """The transformed dimensions hold no channels."""
    result, mask = execute(op, args, kwargs), replay.mask_of(op, "self")
    return result, mask.amax(tuple(bind(op)["dim"]), keepdim=True).expand(result.shape)


def as_complex(replay: MaskedReplay, op: Op, args: tuple, kwargs: dict) -> tuple[Tensor, Tensor]:
    """A complex number is kept with its two parts."""
    return execute(op, args, kwargs), replay.mask_of(op, "self").select(-1, 0)


def as_real(replay: MaskedReplay, op: Op, args: tuple, kwargs: dict) -> tuple[Tensor, Tensor]:
    """Both parts are kept with their complex number."""
    result = execute(op, args, kwargs)
    return result, replay.mask_of(op, "self").unsqueeze(-1).expand(result.shape)


def packed(replay: MaskedReplay, op: Op, args: tuple, kwargs: dict) -> tuple[Any, Any]:
    """Steps of sequences move; their channels stay."""
    name = "data" if op.func == "_pad_packed_sequence" else "input"
    result, mask = execute(op, args, kwargs), replay.mask_of(op, name)
    channels = mask.amax(tuple(range(1 if name == "data" else 2)))
    return result, [channels.expand(result[0].shape), None]


def padded(replay: MaskedReplay, op: Op, args: tuple, kwargs: dict) -> tuple[Tensor, Tensor]:
    """What is padded is there in every channel that some sequence keeps."""
    result = execute(op, args, kwargs)
    channels = torch.stack([replay.mask_operand(r).amax(0) for r in tensor_refs(bind(op)["sequences"])]).amax(0)
    return result, channels.expand(result.shape)


def distances(replay: MaskedReplay, op: Op, args: tuple, kwargs: dict) -> tuple[Tensor, Tensor]:
    """A pair is kept with its two rows."""
    a, b = (replay.mask_of(op, name).amax(-1) for name in ("x1", "x2"))
    return execute(op, args, kwargs), a.unsqueeze(-1) * b.unsqueeze(-2)


def deformed(replay: MaskedReplay, op: Op, args: tuple, kwargs: dict) -> tuple[Tensor, Tensor]:
    """A channel is kept where its row of weights is."""
    result, rows = execute(op, args, kwargs), replay.mask_of(op, "weight").flatten(1).amax(1)
    return result, rows.reshape(1, -1, 1, 1).expand(result.shape)


def regions(replay: MaskedReplay, op: Op, args: tuple, kwargs: dict) -> tuple[Any, Tensor]:
    """Channels stay, wherever the regions are."""
    result, channels = execute(op, args, kwargs), replay.mask_of(op, "input").amax((0, 2, 3))
    first = result if isinstance(result, Tensor) else result[0]
    return result, channels.reshape(1, -1, 1, 1).expand(first.shape)


def product(replay: MaskedReplay, op: Op, args: tuple, kwargs: dict) -> tuple[Tensor, Tensor]:
    """Products added to a bias: rows of the first factor, columns of the second."""
    left, right = ("batch1", "batch2") if "bmm" in op.name else ("mat1", "mat2")
    rows = replay.mask_of(op, left).amax(-1, keepdim=True)
    columns = replay.mask_of(op, right).amax(-2, keepdim=True)
    mask = rows * columns
    mask = mask.amax(0) if mask.dim() == 3 else mask
    return execute(op, args, kwargs), mask if op.func == "_sparse_mm" else mask * replay.mask_of(op, "self")


def written(replay: MaskedReplay, op: Op, args: tuple, kwargs: dict) -> tuple[Tensor, Tensor]:
    """Values written at numbered positions: there the channels of both stay, whatever the position."""
    bound, mask = bind(op), replay.mask_of(op, "self")
    source = next((bound[n] for n in ("src", "source", "values") if isinstance(bound.get(n), Ref)), None)
    if source is not None:
        mask = mask * _channels(replay, bound, replay.mask_operand(source), mask.shape)
    return execute(op, args, kwargs), replay.write_mask(op, mask)


def _channels(replay: MaskedReplay, bound: dict, values: Tensor, shape: torch.Size) -> Tensor:
    """Return the mask of written values without the positions that index tensors number."""
    if bound.get("dim") is None:  # x[indices] = values: what comes after the indexed dimensions
        indices = [replay.values[r.value] for r in bound["indices"] if isinstance(r, Ref)]
        after = len(shape) - sum(i.dim() if i.dtype in (torch.bool, torch.uint8) else 1 for i in indices)
        leading = tuple(range(values.dim() - min(after, values.dim())))
        return values.amax(leading) if leading else values
    dim = int(bound["dim"]) % len(shape)
    gone = tuple(d for d, n in enumerate(values.shape) if d == dim or n != shape[d])
    return values.amax(gone, keepdim=True)


_SPECTRA = ("_fft_r2c", "_fft_c2c", "_fft_c2r")
_WRITES = (
    "scatter", "scatter_add", "scatter_reduce", "index_add", "index_reduce", "index_copy", "index_put",
    "_unsafe_index_put", "_index_put_impl",
)  # fmt: skip
MOVES: dict[str, Callable[..., tuple[Any, Any]]] = {
    "embedding": embedding,
    "_embedding_bag": embedding_bag,
    "_embedding_bag_forward_only": embedding_bag,
    "affine_grid_generator": places,
    "view_as_complex": as_complex,
    "view_as_real": as_real,
    "_pack_padded_sequence": packed,
    "_pad_packed_sequence": packed,
    "pad_sequence": padded,
    "_cdist_forward": distances,
    "_euclidean_dist": distances,
    "addbmm": product,
    "_sparse_addmm": product,
    "_sparse_mm": product,
    "torchvision.deform_conv2d": deformed,
    **dict.fromkeys(("torchvision.roi_align", "torchvision.roi_pool"), regions),
    **dict.fromkeys(_SPECTRA, spectrum),
    **dict.fromkeys(_WRITES, written),
    **dict.fromkeys(("embedding_renorm", "cumsum", "argsort", "bucketize", *FAKE_QUANTIZE), same),
}
