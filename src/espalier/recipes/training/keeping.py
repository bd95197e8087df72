"""A method's snapshots in a checkpoint: the files of a state, byte by byte, among the checkpoint's tensors."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .average import Average
from .learner import Learner
from .state import files_of, read_state, settle, write_state

if TYPE_CHECKING:
    from ...engines.engine import Engine
    from ..steps import Training

_NAME = "snapshot"
_DATA = "data"


def text_tensor(text: str) -> Tensor:
    """Return a text as bytes."""
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def tensor_text(tensor: Tensor) -> str:
    """Return the text of ``text_tensor``."""
    return bytes(tensor.tolist()).decode()


def packed(learner: Learner) -> dict[str, Tensor]:
    """Return a learner as tensors of bytes."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        data = write_state(folder, _NAME, learner.state(0), learner.extra())
        found = {name: folder / name for name in files_of(data) if (folder / name).is_file()}
        files = {
            name: torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8) for name, path in found.items()
        }
    return {**files, _DATA: text_tensor(json.dumps(data))}


def unpacked(tensors: dict[str, Tensor], original: nn.Module, training: Training, engine: Engine) -> Learner:
    """Return the learner that ``packed`` was given, at work again."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, content in tensors.items():
            if name != _DATA:
                (folder / name).write_bytes(content.numpy().tobytes())
        state, extra = read_state(folder, json.loads(tensor_text(tensors[_DATA])), original)
    assert state.optimizer is not None
    average = None if training.ema_decay is None else Average(state.model, training.ema_decay)
    settle(state.model, state.optimizer, channels_last=training.channels_last)
    learner = Learner(state.model, state.optimizer, state.kept, average)
    learner.spread(engine)
    learner.resume(extra)
    return learner
