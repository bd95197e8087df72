"""What a stage hands to the next: a network, its optimizer, and how it was cut so far; and their files.

NAME.safetensors            the network: its surgery first, then its tensors (``es.save``)
NAME.training.safetensors   the optimizer's moments, masks, clusters, and in mid-training what else is needed
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...core import FileError, Plan
from ...core.atomic import replacing
from ...graph import carry_optimizer, load, save
from ...graph.masks import Masks, mask_, masks_of
from ...graph.recording.tensors import named_tensors
from ...graph.sharing import Sharing, fitted, sharing_of
from .optimizers import KINDS

Data = dict[str, Any]  # what JSON can hold


@dataclass(frozen=True, eq=False)
class State:
    """A network between two stages. Nobody changes it: a stage that trains takes a copy.

    Attributes:
        model: in eval mode, its tensors contiguous.
        optimizer: with the moments of the training so far; None before any.
        kept: ``{group: units of the dense network that are left}``, of the groups that lost some.
        epochs: trained so far in the run; they number the order of the data.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer | None = None
    kept: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    epochs: int = 0

    def copied(self) -> State:
        """Return a copy that may be trained."""
        model = copy.deepcopy(self.model)
        optimizer = None if self.optimizer is None else carry_optimizer(self.optimizer, self.model, model)
        return State(model, optimizer, self.kept, self.epochs)

    def then(self, plan: Plan) -> Mapping[str, tuple[int, ...]]:
        """Return ``kept`` after a further plan; groups keep their names from cut to cut."""
        new = {
            name: tuple(self.kept[name][unit] for unit in units) if name in self.kept else tuple(units)
            for name, units in plan.keep.items()
        }
        return {**self.kept, **new}


def settle(model: nn.Module, optimizer: torch.optim.Optimizer | None, *, channels_last: bool = False) -> None:
    """Give every tensor the strides that it would have after loading: kernels differ in the last bit with them."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data = _laid_out(tensor.data, channels_last)
            tensor.grad = None
        for parameter, state in optimizer.state.items() if optimizer is not None else ():
            for key, value in state.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    state[key] = _laid_out(value, channels_last)


def _laid_out(tensor: Tensor, channels_last: bool) -> Tensor:
    if channels_last and tensor.dim() == 4:
        return tensor.clone(memory_format=torch.channels_last)
    return tensor.clone(memory_format=torch.contiguous_format)


def write_state(folder: Path, name: str, state: State, extra: Mapping[str, Tensor] | None = None) -> Data:
    """Write a state and return what ``read_state`` needs beside the files.

    Args:
        folder: that exists.
        name: of the files, without an ending.
        state: to be written; its model need not be contiguous.
        extra: more tensors to keep with it.

    Raises:
        FileError: the place cannot be written, or the model has state that a file cannot hold.
    """
    save(state.model, folder / f"{name}.safetensors")
    groups, tensors = optimizer_data(state.model, state.optimizer)
    tensors |= carried_tensors(state.model) | {f"extra/{key}": value for key, value in (extra or {}).items()}
    data: Data = {"name": name, "kept": {k: list(v) for k, v in state.kept.items()}, "epochs": state.epochs}
    if state.optimizer is None and not tensors:
        return data
    path = folder / f"{name}.training.safetensors"
    plain = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in tensors.items()}
    try:
        with replacing(path) as temporary:
            save_file(plain, temporary)
            digest = _file_sha256(temporary)
    except (OSError, SafetensorError) as error:
        raise FileError(f"cannot write {path}: {error}") from error
    return {**data, "optimizer": groups, "sha256": digest}


def read_state(
    folder: Path, data: Mapping[str, Any], original: nn.Module | Callable[[], nn.Module]
) -> tuple[State, dict[str, Tensor]]:
    """Return a state and the extra tensors that were kept with it.

    Raises:
        FileError: a file is missing or damaged.
    """
    name = data["name"]
    model = load(folder / f"{name}.safetensors", original).eval()
    kept = {str(k): tuple(v) for k, v in data["kept"].items()}
    if "sha256" not in data:
        return State(model, None, kept, data["epochs"]), {}
    path = folder / f"{name}.training.safetensors"
    try:
        if _file_sha256(path) != data["sha256"]:
            raise FileError(f"{path} is damaged: it does not match its SHA-256")
        tensors = {key: tensor.clone() for key, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise FileError(f"cannot read {path}: {error}") from error
    put_carried(model, tensors)
    optimizer = None if data["optimizer"] is None else read_optimizer(model, data["optimizer"], tensors)
    extra = {key.removeprefix("extra/"): value for key, value in tensors.items() if key.startswith("extra/")}
    return State(model, optimizer, kept, data["epochs"]), extra


def files_of(data: Mapping[str, Any]) -> Iterable[str]:
    """Return the names of a state's files."""
    return f"{data['name']}.safetensors", f"{data['name']}.training.safetensors", f"{data['name']}.shards"


def optimizer_data(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> tuple[Data | None, dict[str, Tensor]]:
    """Return an optimizer as (what JSON can hold, tensors)."""
    if optimizer is None:
        return None, {}
    names = {id(tensor): name for name, tensor in named_tensors(model).items()}
    kind = next(name for name, known in KINDS.items() if type(optimizer) is known)
    groups = [
        {
            "params": [names[id(parameter)] for parameter in group["params"]],
            "options": {key: value for key, value in group.items() if key != "params"},
        }
        for group in optimizer.param_groups
    ]
    tensors, scalars = {}, {}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            place = f"optimizer/{names[id(parameter)]}/{key}"
            (tensors if isinstance(value, Tensor) else scalars)[place] = value
    return {"kind": kind, "groups": groups, "scalars": scalars}, tensors


def read_optimizer(model: nn.Module, data: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> torch.optim.Optimizer:
    """Build an optimizer from what ``optimizer_data`` returned."""
    known = named_tensors(model)
    groups = [
        {
            "params": [known[name] for name in group["params"]],
            **{key: tuple(value) if isinstance(value, list) else value for key, value in group["options"].items()},
        }
        for group in data["groups"]
    ]
    made = KINDS[data["kind"]](groups, lr=1.0)
    for place, value in {**tensors, **data["scalars"]}.items():
        owner, _, rest = place.partition("/")
        if owner == "optimizer":
            name, _, key = rest.rpartition("/")
            moved = isinstance(value, Tensor) and value.dim() > 0  # counters of steps stay on the CPU
            made.state[known[name]][key] = value.to(known[name].device) if moved else value
    return made


def carried_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's masks and clusters as a checkpoint's tensors; masks as bytes: shards know no booleans."""
    masks = {f"mask/{name}": mask.byte() for name, mask in masks_of(model).kept.items()}
    return masks | {f"sharing/{name}": symbols for name, symbols in sharing_of(model).symbols.items()}


def put_carried(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put the masks and clusters that ``carried_tensors`` returned on a model; its weights are what they were."""
    kept = {place.removeprefix("mask/"): mask.bool() for place, mask in tensors.items() if place.startswith("mask/")}
    if kept:
        mask_(model, Masks(kept))
    symbols = {place.removeprefix("sharing/"): one for place, one in tensors.items() if place.startswith("sharing/")}
    if symbols:
        model.espalier_sharing = fitted(Sharing(symbols), model)  # type: ignore[assignment]


def _file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
