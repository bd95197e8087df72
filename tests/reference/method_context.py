"""A method's context without a training loop: a goal in MACs, a seeded generator, and batches that are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

import espalier as es
from espalier import criteria
from espalier.methods import Context, Goal


def goal(macs: int, **changes: Any) -> Goal:
    """Return the goal of a network with so many MACs, units by their magnitude."""
    given: dict[str, Any] = {
        "limits": {"macs": macs},
        "max_drop": None,
        "fits": lambda graph, counts: graph.cost(counts).macs <= macs,
        "fewest": lambda graph: dict.fromkeys(graph.groups, 1),
        "scores": criteria.magnitude,
        "plan": lambda graph, scores: es.plan(graph, scores, es.Budget(macs=macs)),
    }
    return Goal(**{**given, **changes})


def context(aim: Goal, steps: int = 100, batches: Sequence[tuple[Any, Any]] = (), **changes: Any) -> Context:
    """Return what a method is given."""
    given: dict[str, Any] = {
        "evaluate": lambda model: 0.5,
        "train": lambda epochs: None,
        "snapshot": lambda: None,
        "batches": lambda count: batches[:count],
        "loss": functional.cross_entropy,
        "steps": steps,
        "sum_ranks": lambda tensor: tensor,
        "generator": torch.Generator().manual_seed(0),
        "hold": lambda still: None,
        "note": lambda text: None,
        "goal": aim,
    }
    return Context(**{**given, **changes})
