"""The engine: trace, cut, prove."""

from .cut import cut, cut_
from .files import load, save
from .graph import Graph
from .graph_module import to_graph_module
from .probes.gates import gates
from .probes.taps import Tap, taps
from .proof.prove import prove
from .surgery.optimizer import carry_optimizer
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
