"""Measured tables: how long each layer takes at which widths, as plain data. Whoever measures fills them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..core import EspalierError

Widths = tuple[int, ...]


class TablesError(EspalierError):
    """Tables are missing, damaged, or of another network, machine or backend."""


@dataclass(frozen=True)
class Conditions:
    """What a time depends on beside the layer.

    Attributes:
        machine: the processor, in words.
        backend, version: what ran it.
        threads, batch: how many.
        dtype: of the weights.
    """

    machine: str
    backend: str
    version: str
    threads: int
    batch: int
    dtype: str

    def __str__(self) -> str:
        plural = "s" if self.threads > 1 else ""
        return (
            f"{self.backend} ({self.version}) on {self.machine}, {self.threads} thread{plural}, batch {self.batch}, "
            f"{self.dtype}"
        )


@dataclass(frozen=True)
class Tables:
    """Times of layers, and how they add up.

        latency_ms = factor * sum of layers' times

    Attributes:
        conditions: where and how they were measured.
        kinds: of operators that take time of their own there; all others are counted in ``factor``.
        layers: ``{layer: {widths: milliseconds}}``; a layer that could not be timed alone has no entries.
        dense_ms: the whole network, measured.
        factor: the whole network over the sum of its layers: what fusion saves and everything between layers costs.
    """

    conditions: Conditions
    kinds: tuple[str, ...]
    layers: Mapping[str, Mapping[Widths, float]]
    dense_ms: float
    factor: float

    def recalibrated(self, predicted_ms: float, measured_ms: float) -> Tables:
        """Return tables whose prediction of a network, ``predicted_ms``, becomes what was measured."""
        return replace(self, factor=self.factor * measured_ms / predicted_ms)

    def to_json(self) -> str:
        """Return the tables as JSON; ``from_json(to_json())`` is the same tables."""
        layers = {name: [[list(widths), ms] for widths, ms in one.items()] for name, one in self.layers.items()}
        return json.dumps({**asdict(replace(self, layers={})), "layers": layers}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Tables:
        """Read tables.

        Raises:
            TablesError: the text is no tables.
        """
        try:
            data = json.loads(text)
            layers = {
                str(name): {tuple(int(w) for w in widths): _positive(ms) for widths, ms in rows}
                for name, rows in data["layers"].items()
            }
            conditions = Conditions(**data["conditions"])
            dense_ms, factor = _positive(data["dense_ms"]), _positive(data["factor"])
            return cls(conditions, tuple(map(str, data["kinds"])), layers, dense_ms, factor)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise TablesError(f"this text is no latency tables: {error!r:.200}") from error


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise ValueError(f"{value!r} is no time")
    return float(value)
