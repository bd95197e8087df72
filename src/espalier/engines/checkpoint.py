"""Shards on disk, by ``torch.distributed.checkpoint``, as safetensors: each rank writes its own, nothing is pickled.

    PATH/shard-00001-model-00001-of-00001.safetensors     rank 0's shards, and in the header where they belong
    PATH/shard-00002-...                                  rank 1's

They are read whole, by any number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from ..core import FileError, cause


def write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors, of which some are in shards; every rank calls this with the same names.

    Args:
        path: a folder that does not exist, on a file system that all ranks see.
        tensors: by name.

    Raises:
        FileError: the place cannot be written.
    """
    try:
        save(dict(tensors), storage_writer=HuggingFaceStorageWriter(str(path), save_distributed=True))
    except Exception as error:  # of the library's own kinds, and of the file system's
        raise FileError(f"cannot write {path}: {cause(error)}") from error


def read(path: Path) -> dict[str, Tensor]:
    """Return whole tensors.

    Raises:
        FileError: a file is missing or damaged.
    """
    try:
        reader = HuggingFaceStorageReader(str(path))
        known = reader.read_metadata().state_dict_metadata
        found = {
            name: torch.empty(one.size, dtype=one.properties.dtype)
            for name, one in known.items()
            if isinstance(one, TensorStorageMetadata)
        }
        load(found, storage_reader=reader)
    except Exception as error:
        raise FileError(f"cannot read {path}: {cause(error)}") from error
    return found
