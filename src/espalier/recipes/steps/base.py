"""What all steps share: they are frozen, and refuse keys that they do not know."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Backend = Literal["eager", "compile", "onnxruntime", "openvino"]  # the names of `espalier.backends`


class Record(BaseModel):
    """Frozen settings. Unknown keys, infinities and NaN are refused; field docstrings are the descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Step(Record):
    """One stage of a recipe. ``kind`` says which in a file; Python names the class instead."""

    kind: str
