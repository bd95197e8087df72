"""Tensors by name from a file: safetensors, or a PyTorch checkpoint read without pickle's code.

What the file is, its first bytes say. PyTorch's own messages are not passed on: some advise to run the file's code.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..core import FileError

_WRAPPERS = ("state_dict", "model")  # where training scripts put the tensors inside a checkpoint
_SHOWN = 5


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, from under ``state_dict`` or ``model`` where they are there.

    Raises:
        FileError: the file is missing, truncated, damaged, holds more than tensors, or is something else.
    """
    if not path.is_file():
        raise FileError(f"{path}: no such weight file")
    try:
        with open(path, "rb") as file:
            start = file.read(9)
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    if not start:
        raise FileError(f"{path} is empty")
    if start.startswith((b"PK\x03\x04", b"\x80")) and start[8:] != b"{":  # a ZIP archive, a bare pickle
        return _named(path, _checkpoint(path))
    if path.suffix != ".safetensors" and start[8:] != b"{":
        raise FileError(f"{path} is neither a safetensors file nor a PyTorch checkpoint")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise FileError(f"{path} is truncated, damaged or not a safetensors file") from error


def _checkpoint(path: Path) -> Any:
    try:
        with warnings.catch_warnings(), open(path, "rb") as file:  # given a path, torch goes by its ending
            warnings.simplefilter("ignore")  # remarks on how the file was written
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"tensors ({named[1]})" if named else "tensors, or is damaged"
        message = (
            f"{path} holds more than {what}: reading it would run code from the file, which is never done. "
            "Where you trust the file, save the tensors alone: torch.save(model.state_dict(), PATH)"
        )
    except Exception:  # the reader's errors have no common root
        message = f"{path} is truncated or damaged: it begins as a PyTorch checkpoint and cannot be read to its end"
    raise FileError(message)  # outside, so that the reader's text does not follow in a traceback


def _named(path: Path, content: Any) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if isinstance(content, Mapping) and content and all(isinstance(tensor, Tensor) for tensor in content.values()):
        return {str(name): tensor for name, tensor in content.items()}
    found = type(content).__name__
    if isinstance(content, Mapping):
        kinds = [f"{key} ({type(value).__name__})" for key, value in content.items()]
        found = ", ".join(kinds[:_SHOWN]) + (f" and {len(kinds) - _SHOWN} more" if len(kinds) > _SHOWN else "")
    raise FileError(
        f"{path} does not hold tensors by name, at the top or under {' or '.join(_WRAPPERS)}; "
        f"it holds {found or 'nothing'}"
    )
