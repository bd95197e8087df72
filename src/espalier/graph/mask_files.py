"""Masks on disk: booleans by tensor name, in a safetensors file of their own, with the hash of each.

A model's own file does not hold them: its zeros are in its weights. They are for weights that are reset or trained on
elsewhere, as a lottery ticket's are.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..core import FileError
from ..core.atomic import replacing
from .header import sha256
from .masks import Masks

_FORMAT, _VERSION, _HASHES = "espalier_masks", "1", "sha256"


def write_masks(masks: Masks, path: str | Path) -> None:
    """Write masks, whole or not at all.

    Raises:
        FileError: the place cannot be written.
    """
    plain = {name: mask.detach().cpu().contiguous().clone() for name, mask in masks.kept.items()}
    hashes = {name: _digest(mask) for name, mask in plain.items()}
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            save_file(plain, temporary, metadata={_FORMAT: _VERSION, _HASHES: json.dumps(hashes)})
    except (OSError, SafetensorError) as error:
        raise FileError(f"cannot write {target}: {error}") from error


def read_masks(path: str | Path) -> Masks:
    """Return the masks that ``write_masks`` wrote.

    Raises:
        FileError: the file is missing, damaged or foreign.
    """
    source = Path(path)
    try:
        with safe_open(source, framework="pt") as file:
            entries = dict(file.metadata() or {})
            found = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise FileError(f"cannot read {source}: {error}") from error
    if entries.get(_FORMAT) != _VERSION:
        raise FileError(f"{source} holds no masks of version {_VERSION}")
    try:
        hashes = json.loads(entries.get(_HASHES, ""))
    except ValueError as error:
        raise FileError(f"{source} is damaged: its hashes cannot be read") from error
    right = isinstance(hashes, dict) and hashes == {name: _digest(mask) for name, mask in found.items()}
    if not right or any(mask.dtype is not torch.bool for mask in found.values()):
        raise FileError(f"{source} is damaged: a mask does not match its SHA-256")
    return Masks(found)


def _digest(mask: Tensor) -> str:
    """Return the hash of a mask's bytes and of its shape."""
    return sha256(f"{list(mask.shape)} ".encode() + mask.reshape(-1).view(torch.uint8).numpy().tobytes())
