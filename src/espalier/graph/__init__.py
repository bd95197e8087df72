"""The engine: trace, cut, prove."""

from .cut import cut, cut_
from .graph import Graph, trace

__all__ = ["Graph", "cut", "cut_", "trace"]
