"""The step that writes the result in few bytes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Step


class Encode(Step):
    """Write the network into the run folder as an entropy-coded file, and see that it decodes to the same bits.

    What tensors are made of is found in them: few values that were clustered, zeros that were masked, grids.
    """

    kind: Literal["encode"] = "encode"
    name: str = Field(default="model.esp", pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*\.esp$")
    """of the file"""
