"""The engine: trace, cut, prove."""

from .cut import cut, cut_
from .files import load, save
from .gates import gates
from .graph import Graph
from .graph_module import to_graph_module
from .optimizer import carry_optimizer
from .prove import prove
from .taps import Tap, taps
from .trace import freeze, trace

__all__ = [
    "Graph",
    "Tap",
    "carry_optimizer",
    "cut",
    "cut_",
    "freeze",
    "gates",
    "load",
    "prove",
    "save",
    "taps",
    "to_graph_module",
    "trace",
]
