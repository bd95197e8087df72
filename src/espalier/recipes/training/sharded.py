"""A state in mid-training whose tensors are in shards: its structure as JSON first, then each rank's shards.

NAME.shards/    the network's tensors, the optimizer's moments, and what else is needed to go on
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core import CutError, FileError, GridError, Surgery
from ...graph.grids import Grids, grids_of, put_grids_, unquantize_
from ...graph.masks import unmask_
from ...graph.recording.tensors import stored_tensors
from ...graph.sharing import unshare_
from ...graph.surgery.operate import operate
from .state import Data, State, carried_tensors, optimizer_data, put_carried, read_optimizer


def write_shards(folder: Path, name: str, state: State, extra: Mapping[str, Tensor]) -> Data:
    """Write a state at work and return what ``read_shards`` needs beside the files; every rank calls this.

    Raises:
        FileError: the place cannot be written.
    """
    from ...engines.checkpoint import write  # one process needs none of it

    groups, tensors = optimizer_data(state.model, state.optimizer)
    tensors |= {f"model/{key}": value.detach() for key, value in stored_tensors(state.model).items()}
    tensors |= carried_tensors(state.model) | {f"extra/{key}": value.detach() for key, value in extra.items()}
    write(folder / f"{name}.shards", tensors)
    surgery: Surgery = getattr(state.model, "espalier_surgery", None) or Surgery()
    return {
        "name": name,
        "kept": {k: list(v) for k, v in state.kept.items()},
        "epochs": state.epochs,
        "optimizer": groups,
        "surgery": surgery.to_data(),
        "proof": getattr(state.model, "espalier_proof", None),
        "grids": grids_of(state.model).to_data(),
    }


def read_shards(
    folder: Path, data: Mapping[str, Any], tensors: Mapping[str, Tensor], original: nn.Module
) -> tuple[State, dict[str, Tensor]]:
    """Return the state, whole, and the extra tensors that were kept with it.

    Raises:
        FileError: the files do not fit the network.
    """
    try:
        model = unshare_(
            unmask_(operate(copy.deepcopy(original), Surgery.from_data(data["surgery"]), inplace=True))
        ).eval()
        stored = stored_tensors(model)
        with torch.no_grad():
            for name, tensor in stored.items():
                tensor.copy_(tensors[f"model/{name}"])
        put_grids_(unquantize_(model), Grids.from_data(data.get("grids", Grids().to_data())))
    except (CutError, GridError, KeyError, RuntimeError) as error:
        raise FileError(
            f"{folder / data['name']}.shards does not fit this {type(original).__name__}: {error}"
        ) from error
    if data["proof"] is not None:
        model.espalier_proof = data["proof"]
    put_carried(model, tensors)
    optimizer = None if data["optimizer"] is None else read_optimizer(model, data["optimizer"], tensors)
    extra = {key.removeprefix("extra/"): value for key, value in tensors.items() if key.startswith("extra/")}
    kept = {str(k): tuple(v) for k, v in data["kept"].items()}
    return State(model, optimizer, kept, data["epochs"]), extra
