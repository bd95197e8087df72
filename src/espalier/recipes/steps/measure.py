"""The step that measures the dense network and the result."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import MOST_THREADS, Backend, Step


class Measure(Step):
    """Measure both networks. The test split is read here, once, and so a recipe measures once, at its end."""

    kind: Literal["measure"] = "measure"
    latency: bool = True
    """time both networks in turns"""
    backend: Backend = "eager"
    """what runs them"""
    threads: int | None = Field(default=None, ge=1, le=MOST_THREADS)
    """of the backend; when not given, those of the prune step that limits latency on it, else PyTorch's own number"""
    batch: int | None = Field(default=None, ge=1)
    """inputs a timing; when not given, those of a prune step that limits latency on this backend, else as many as cost
    about a thousand million MACs: a shorter pass is hard to time"""
    rounds: int = Field(default=30, ge=5)
    """timings of each network"""
