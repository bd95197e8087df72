"""Weight files: safetensors, or a PyTorch checkpoint read without pickle's code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from espalier.core import FileError

_WRAPPERS = ("state_dict", "model")  # where training scripts put the tensors inside a checkpoint
_PREFIX = "module."  # left by DataParallel


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Fill ``model`` with the tensors of a weight file, in place.

    Tensors that a file may lack: parameters that are not trained, and the batch counters of batch norms.

    Args:
        model: the network that the file was made for.
        path: ``.safetensors``, or a checkpoint (``.th``, ``.pt``, ``.pth``) that holds tensors by name, under
            ``state_dict`` or at the top, with or without the prefix ``module.``.

    Raises:
        FileError: the file is missing, damaged, or made for another network. The model is untouched then.
    """
    tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in _read(Path(path)).items()}
    fixed = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    state = model.state_dict()
    missing = [
        name for name in state if name not in tensors and name not in fixed and not name.endswith("num_batches_tracked")
    ]
    unknown = [name for name in tensors if name not in state]
    shapes = [
        f"{name} is {tuple(tensor.shape)}, expected {tuple(state[name].shape)}"
        for name, tensor in tensors.items()
        if name in state and tensor.shape != state[name].shape
    ]
    problems = _list("it lacks", missing) + _list("it has unknown", unknown) + _list("it has other shapes:", shapes)
    if problems:
        raise FileError(f"{path} was made for another network than {type(model).__name__}: {'; '.join(problems)}")
    model.load_state_dict(tensors, strict=False)


def _list(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{what} {', '.join(names[:3])}{more}"]


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise FileError(f"{path}: no such weight file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).split("\n")[0]
        raise FileError(f"{path} is damaged or is not a weight file: {reason}") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise FileError(f"{path} does not hold tensors by name (nor under {' or '.join(_WRAPPERS)})")
    return content
