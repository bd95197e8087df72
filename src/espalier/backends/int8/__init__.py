"""Eight-bit integers: how each runtime is brought to compute with them, and what is refused."""

from .settings import Int8

__all__ = ["Int8"]
