"""Espalier: any PyTorch network in, a provably right smaller network out.

Names are imported from their rooms on first use, so that ``import espalier`` costs nothing and does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import backends, coding, criteria, graph, losses, recipes, recovery, tasks, transforms, zoo
    from .api import compress, default_example, model, resume
    from .backends import export
    from .coding import decode, encode
    from .core import Budget, Cost, EspalierError, Plan, ProofError
    from .graph import carry_optimizer, cut, cut_, freeze, gates, load, prove, save, taps, to_graph_module, trace
    from .measure import compare
    from .recipes import Recipe, Settings
    from .selection import cluster, plan, sparsify
    from .tasks import Task, load_task
    from .transforms import Quantization, packed, quantize

__version__ = "0.1.0"

# Where each public name lives; the empty home is for rooms that are public themselves.
_HOMES = {
    "Budget": "core",
    "Cost": "core",
    "EspalierError": "core",
    "Plan": "core",
    "ProofError": "core",
    "Quantization": "transforms",
    "Recipe": "recipes",
    "Settings": "recipes",
    "Task": "tasks",
    "backends": "",
    "carry_optimizer": "graph",
    "cluster": "selection",
    "coding": "",
    "compare": "measure",
    "compress": "api",
    "criteria": "",
    "cut": "graph",
    "cut_": "graph",
    "decode": "coding",
    "default_example": "api",
    "encode": "coding",
    "export": "backends",
    "freeze": "graph",
    "gates": "graph",
    "graph": "",
    "load": "graph",
    "load_task": "tasks",
    "losses": "",
    "model": "api",
    "packed": "transforms",
    "plan": "selection",
    "prove": "graph",
    "quantize": "transforms",
    "recipes": "",
    "recovery": "",
    "resume": "api",
    "save": "graph",
    "sparsify": "selection",
    "taps": "graph",
    "tasks": "",
    "to_graph_module": "graph",
    "trace": "graph",
    "transforms": "",
    "zoo": "",
}

__all__ = [
    "Budget",
    "Cost",
    "EspalierError",
    "Plan",
    "ProofError",
    "Quantization",
    "Recipe",
    "Settings",
    "Task",
    "backends",
    "carry_optimizer",
    "cluster",
    "coding",
    "compare",
    "compress",
    "criteria",
    "cut",
    "cut_",
    "decode",
    "default_example",
    "encode",
    "export",
    "freeze",
    "gates",
    "graph",
    "load",
    "load_task",
    "losses",
    "model",
    "packed",
    "plan",
    "prove",
    "quantize",
    "recipes",
    "recovery",
    "resume",
    "save",
    "sparsify",
    "taps",
    "tasks",
    "to_graph_module",
    "trace",
    "transforms",
    "zoo",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its room and remember it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'espalier' has no attribute {name!r}")
    home = _HOMES[name]
    value = getattr(import_module(f"espalier.{home}"), name) if home else import_module(f"espalier.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return [*__all__, "__version__"]
