"""The engine: trace, cut, prove."""

from .cut import cut, cut_
from .files import load, save
from .graph import Graph, trace
from .graph_module import to_graph_module
from .optimizer import carry_optimizer
from .prove import prove

__all__ = ["Graph", "carry_optimizer", "cut", "cut_", "load", "prove", "save", "to_graph_module", "trace"]
