"""The step that writes the result."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Step


class Save(Step):
    """Write the network into the run folder, read it back, and see that it answers the same."""

    kind: Literal["save"] = "save"
    name: str = Field(default="model.safetensors", pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*\.safetensors$")
    """of the file"""
