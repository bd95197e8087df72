"""What all steps share: they are frozen, and refuse keys that they do not know."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from ...core import EspalierError

Backend = Literal["eager", "compile", "onnxruntime", "openvino"]  # the names of `espalier.backends`
WHOLE = 2**63  # whole numbers are below: PyTorch's own are of 64 bits
MOST_THREADS = 4096


class RecipeError(EspalierError, ValueError):
    """A recipe, a step or a setting has mistakes; the message lists them all, with the nearest valid keys."""


class _Speaking(type(BaseModel)):
    """Has Python's own calls fail as files do; what is checked inside another record is still checked with it."""

    def __call__(cls, *args: Any, **fields: Any) -> Any:
        try:
            return super().__call__(*args, **fields)
        except ValidationError as error:
            from ..files import mistakes

            lines = mistakes(error, cls)  # type: ignore[arg-type]  cls is the record
            raise RecipeError("\n".join(f"{cls.__name__}: {line}" for line in lines)) from error


class Record(BaseModel, metaclass=_Speaking):
    """Frozen settings. Unknown keys, infinities and NaN are refused; field docstrings are the descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _fits(cls, value: Any) -> Any:
        if isinstance(value, int) and value >= WHOLE:
            raise ValueError(f"a whole number below 2**63 is needed (it is {value})")
        return value


class Step(Record):
    """One stage of a recipe. ``kind`` says which in a file; Python names the class instead."""

    kind: str
