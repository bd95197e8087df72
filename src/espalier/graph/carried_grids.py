"""What a model carries of its grids: data by name, as JSON both ways, sliced as its tensors are.

{"inputs":  {module path: {"kind": "grid", "bits": 8, "step": 0.02, "zero_point": 128, "signed": false}},
 "weights": {tensor: [bits, dimension of the channels or null, type of the steps, the steps' bytes in base64]}}
"""

from __future__ import annotations

import base64
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from ..core import EspalierWarning, GridError, Slice, Surgery
from .input_hooks import Dynamic, Grid, Input, Sign
from .recording.tensors import named_tensors
from .weight_grids import WeightGrid


@dataclass(frozen=True, eq=False)
class Grids:
    """Which weights lie on a grid, and which inputs are put on one; nobody changes it.

    Attributes:
        inputs: ``{module path: what its first argument is quantized to}``.
        weights: ``{tensor: the grid that its numbers lie on}``.
    """

    inputs: Mapping[str, Input] = field(default_factory=dict)
    weights: Mapping[str, WeightGrid] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there is any grid."""
        return bool(self.inputs or self.weights)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: copies of a model share what nobody changes."""
        return self

    def sliced(self, slices: Iterable[Slice]) -> Grids:
        """Return the grids of what is left after a cut."""
        weights = dict(self.weights)
        for one in slices:
            grid = weights.get(one.tensor)
            if grid is not None and grid.step.dim() and one.dim == grid.axis:
                index = torch.tensor(one.keep, dtype=torch.long, device=grid.step.device)
                weights[one.tensor] = replace(grid, step=grid.step.index_select(0, index))
        return Grids(self.inputs, weights)

    def to_data(self) -> dict[str, Any]:
        """Return the grids as what JSON can hold; ``from_data`` gives the same numbers."""
        kinds = {kind: name for name, kind in _KINDS.items()}
        return {
            "inputs": {path: {"kind": kinds[type(one)], **asdict(one)} for path, one in self.inputs.items()},
            "weights": {name: _weight_data(one) for name, one in self.weights.items()},
        }

    @classmethod
    def from_data(cls, data: Any) -> Grids:
        """Return the grids of ``to_data``.

        Raises:
            GridError: the data says something that no grid is.
        """
        try:
            if set(data) != {"inputs", "weights"}:
                raise GridError("grids are those of inputs and of weights")
            return cls(
                {str(path): _input_of(**one) for path, one in data["inputs"].items()},
                {str(name): _weight_of(*one) for name, one in data["weights"].items()},
            )
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise GridError(f"grids cannot be read: {error!r:.120}") from error


_NONE = Grids()
_KINDS: dict[str, type[Input]] = {"grid": Grid, "dynamic": Dynamic, "sign": Sign}
_TYPES = {"float32": np.float32, "float64": np.float64}


def grids_of(model: nn.Module) -> Grids:
    """Return the grids that a model carries; the same object until others are put on it."""
    return getattr(model, "espalier_grids", None) or _NONE  # type: ignore[return-value]


def carry(model: nn.Module, result: nn.Module, surgery: Surgery) -> None:
    """Give what a surgery made of a model the model's grids, sliced as its tensors were."""
    if grids_of(model):
        result.espalier_grids = grids_of(model).sliced(surgery.slices.values())  # type: ignore[assignment]


@torch.no_grad()
def scale_rows_(model: nn.Module, name: str, rows: Tensor, factor: float) -> None:
    """Multiply rows of a tensor, in place: their steps, where it lies on a grid, so that the integers stay."""
    tensor, grids = named_tensors(model)[name], grids_of(model)
    grid = grids.weights.get(name)
    weights = {other: one for other, one in grids.weights.items() if other != name}
    if grid is None or grid.axis:
        tensor[rows] *= factor
    else:
        integers = grid.integers(tensor)
        step = grid.step.expand(tensor.shape[0]).clone()
        step[rows.to(step.device)] *= factor
        weights[name] = replace(grid, step=step)
        tensor.copy_(weights[name].value(integers, tensor.dtype))
    if grid is not None:
        model.espalier_grids = Grids(grids.inputs, weights)  # type: ignore[assignment]
        if grid.axis:
            text = f"{name} lies on no grid any more: a cut scales its rows, and its steps are of another dimension"
            warnings.warn(text, EspalierWarning, stacklevel=2)


def _input_of(kind: str, **numbers: Any) -> Input:
    if kind not in _KINDS:
        raise GridError(f"{kind!r:.40} is no kind of grid")
    return _KINDS[kind](**numbers)


def _weight_data(grid: WeightGrid) -> list[Any]:
    """Return a weight's grid as [bits, dimension of the channels or None, type, steps in base64]."""
    numbers = grid.step.detach().cpu().contiguous().reshape(-1).numpy()
    text = base64.b64encode(numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()).decode()
    return [grid.bits, grid.axis if grid.step.dim() else None, str(grid.step.dtype).removeprefix("torch."), text]


def _weight_of(bits: int, axis: int | None, dtype: str, text: str) -> WeightGrid:
    numbers = np.frombuffer(base64.b64decode(text, validate=True), np.dtype(_TYPES[dtype]).newbyteorder("<"))
    step = torch.from_numpy(numbers.astype(_TYPES[dtype]))
    if axis is None and len(step) != 1:
        raise GridError(f"a weight without channels has {len(step)} steps")
    return WeightGrid(bits=bits, step=step[0] if axis is None else step, axis=0 if axis is None else axis)
