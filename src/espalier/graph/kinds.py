"""Arguments of the wrong kind get one clear error at the door, not an AttributeError from inside."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from torch import nn
from torch.optim import Optimizer

from ..core import KindError, Plan
from .graph import Graph


def check_model(verb: str, model: object) -> None:
    """Check that ``model`` is a module, with no wrapper that shares or shards its parameters among processes.

    Raises:
        KindError: it is not.
    """
    if isinstance(model, nn.Module):
        _check_bare(verb, model)
        return
    hint = ""
    if isinstance(model, Mapping):
        hint = ": tensors by name are no network; load them into one and give that"
    elif isinstance(model, type) and issubclass(model, nn.Module):
        hint = f": give an instance, {model.__name__}(...)"
    elif isinstance(model, Graph):
        hint = ": the model comes before the graph"
    elif isinstance(model, str):
        hint = f": es.model({model!r}) builds one"
    raise KindError(f"{verb} takes an nn.Module as its model, not {_kind(model)}{hint}")


def _check_bare(verb: str, model: nn.Module) -> None:
    for path, module in model.named_modules():
        kinds = {kind.__name__ for kind in type(module).__mro__ if kind.__module__.startswith("torch.")}
        wrapper = next(iter(kinds & _WRAPPERS.keys()), None)
        if wrapper is not None:
            where = f"its {path}" if path else "the model"
            raise KindError(f"{verb} takes the bare module, and {where} is {wrapper}: {_WRAPPERS[wrapper]}")
    sharded = next((name for name, one in model.named_parameters() if type(one).__name__ == "DTensor"), None)
    if sharded is not None:
        raise KindError(f"{verb} takes whole tensors, and {sharded} is a DTensor, sharded among processes: {_GATHER}")


_UNWRAP = "give its .module, and wrap what cut returns anew"
_GATHER = "trace and cut the whole model before it is sharded, or one that the full state dict was loaded into"
_WRAPPERS = {
    "DataParallel": _UNWRAP,
    "DistributedDataParallel": _UNWRAP,
    "FullyShardedDataParallel": _GATHER,
    "FSDPModule": _GATHER,
}


def check_path(verb: str, path: object) -> None:
    """Check that ``path`` names a file or a folder.

    Raises:
        KindError: it is neither a string nor a path.
    """
    if not isinstance(path, str | os.PathLike):
        raise KindError(f"{verb} takes a path as a string or a Path, not {_kind(path)}")


def check_cut(verb: str, model: object, graph: object, plan: object) -> None:
    """Check that these are a module, a graph and a plan.

    Raises:
        KindError: one of them is not.
    """
    check_graph(verb, model, graph)
    if not isinstance(plan, Plan):
        dictionary = ": es.Plan(...) makes one of a dictionary" if isinstance(plan, Mapping) else ""
        raise KindError(
            f"{verb} takes a Plan, not {_kind(plan)}{dictionary or ': es.plan(graph, scores, budget) makes it'}"
        )


def check_graph(verb: str, model: object, graph: object, groups: object = None) -> None:
    """Check that these are a module, a graph, and names of groups or nothing.

    Raises:
        KindError: one of them is not.
    """
    check_model(verb, model)
    if not isinstance(graph, Graph):
        raise KindError(f"{verb} takes a Graph after the model, not {_kind(graph)}: es.trace(model, example) makes it")
    if groups is None:
        return
    one = f": write [{groups!r}]" if isinstance(groups, str) else ""
    if one or not isinstance(groups, Collection) or not all(isinstance(name, str) for name in groups):
        raise KindError(f"{verb} takes its groups as a list of names, not {_kind(groups)}{one}")


def check_carried(optimizer: object, model: object, small: object) -> None:
    """Check that these are an optimizer, the model that it was made for, and what was cut from it.

    Raises:
        KindError: one of them is not.
    """
    if not isinstance(optimizer, Optimizer):
        where = ": it comes before the models" if isinstance(model, Optimizer) or isinstance(small, Optimizer) else ""
        raise KindError(f"carry_optimizer takes an optimizer of torch.optim first, not {_kind(optimizer)}{where}")
    check_model("carry_optimizer", model)
    check_model("carry_optimizer", small)


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
