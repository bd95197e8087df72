"""Where in the model's own source something happens."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import CodeType
from typing import Any

import torch

# code that is nobody's model; with the separator, or torchvision would be torch
TORCH, ENGINE = (f"{folder}{os.sep}" for folder in (Path(torch.__file__).parent, Path(__file__).parents[1]))
_SKIP = (TORCH, ENGINE, "<")
_RUNS_THE_MODEL = str(Path(__file__).parent / "capture.py")
_foreign: dict[CodeType, bool] = {}


def source_line() -> str:
    """Return ``file:line`` of the innermost frame that is the model's own code; "" where there is none."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code not in _foreign:
            _foreign[code] = code.co_filename.startswith(_SKIP)
        if code.co_name == "run_model" and code.co_filename == _RUNS_THE_MODEL:
            return ""  # the model's own code ends here: nn.Sequential has no line of its own
        if not _foreign[code]:
            return f"{code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def called_by_torch(depth: int) -> bool:
    """Whether the frame ``depth`` calls above the caller's is PyTorch's own."""
    return sys._getframe(depth + 1).f_code.co_filename.startswith(TORCH)
