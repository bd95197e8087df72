"""What a network returns, whatever it wraps it in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...core import ModelError


def logits(outputs: Any) -> Tensor:
    """Return the logits among a network's outputs: a tensor, ``outputs.logits``, ``outputs["out"]``, or the first.

    Raises:
        ModelError: there is no tensor to be found.
    """
    if isinstance(outputs, Tensor):
        return outputs
    found = getattr(outputs, "logits", None)
    if found is None and isinstance(outputs, Mapping):
        found = outputs.get("logits", outputs.get("out"))
    if found is None and isinstance(outputs, tuple | list) and outputs:
        found = outputs[0]
    if not isinstance(found, Tensor):
        raise ModelError(f"the model returns {type(outputs).__name__}, in which no logits were found")
    return found
