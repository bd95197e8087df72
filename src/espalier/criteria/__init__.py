"""Criteria: what each unit of each group is worth. One family a file.

Every criterion is a function ``criterion(model, graph, *, options) -> {group name: scores of shape (group.size,)}``,
higher is worth more. It scores every parameter slot of a group, by role and never by module type.
"""

from __future__ import annotations

import inspect

from ..core import UnknownNameError
from .activation import activation_mean, activation_variance, nonzero_count
from .bn_scale import bn_scale
from .channel_pruning import channel_pruning
from .correlation import correlation_redundancy
from .cosine import cosine_redundancy
from .fisher import fisher, group_fisher
from .geometric_median import geometric_median
from .grasp import grasp
from .hagiwara import hagiwara_energy, hagiwara_goodness
from .hrank import hrank
from .karnin import karnin
from .lamp import lamp
from .lda import lda
from .magnitude import magnitude
from .mutual_information import mutual_information
from .n2ps import n2ps
from .neural_complexity import neural_complexity
from .obc import obc
from .obd import obd
from .obs import obs
from .random import random
from .reverse import Reversed, reverse
from .sensitivity_variance import sensitivity_variance
from .signals.slices import Criterion, Scores, slices
from .skeletonization import skeletonization
from .snip import snip
from .svd_entropy import svd_contribution, svd_contribution_data, svd_entropy
from .synflow import synflow
from .taylor import taylor
from .taylor_gate import taylor_gate
from .taylor_second import taylor_second
from .thinet import thinet
from .wanda import wanda

CRITERIA: dict[str, Criterion] = {
    "magnitude": magnitude,
    "bn_scale": bn_scale,
    "geometric_median": geometric_median,
    "lamp": lamp,
    "random": random,
    "synflow": synflow,
    "cosine_redundancy": cosine_redundancy,
    "svd_entropy": svd_entropy,
    "svd_contribution": svd_contribution,
    # gradients of weights
    "taylor": taylor,
    "taylor_second": taylor_second,
    "snip": snip,
    "grasp": grasp,
    "obd": obd,
    "karnin": karnin,
    # gradients of gates, sample by sample
    "taylor_gate": taylor_gate,
    "fisher": fisher,
    "group_fisher": group_fisher,
    "obs": obs,
    "skeletonization": skeletonization,
    "sensitivity_variance": sensitivity_variance,
    # activations
    "activation_mean": activation_mean,
    "activation_variance": activation_variance,
    "nonzero_count": nonzero_count,
    "hrank": hrank,
    "svd_contribution_data": svd_contribution_data,
    "correlation_redundancy": correlation_redundancy,
    "neural_complexity": neural_complexity,
    "mutual_information": mutual_information,
    "lda": lda,
    # activations and the weights that read them
    "wanda": wanda,
    "n2ps": n2ps,
    "hagiwara_goodness": hagiwara_goodness,
    "hagiwara_energy": hagiwara_energy,
    "thinet": thinet,
    "channel_pruning": channel_pruning,
    "obc": obc,
}

# these also need ``batches`` and take ``loss``
DATA_DRIVEN = frozenset(name for name, one in CRITERIA.items() if "batches" in inspect.signature(one).parameters)


REVERSED = "reversed:"  # begins the names of anti-heuristics: "reversed:magnitude" cuts what magnitude keeps


def named(name: str) -> Criterion:
    """Return the criterion called ``name``, or ``reverse`` of it where the name begins with "reversed:".

    Raises:
        UnknownNameError: no criterion has that name.
    """
    plain = name.removeprefix(REVERSED)
    if plain not in CRITERIA:
        raise UnknownNameError("criterion", name, CRITERIA)
    return CRITERIA[name] if plain == name else reverse(CRITERIA[plain])


def reads_data(name: str) -> bool:
    """Say whether the criterion called ``name``, or the one that it reverses, needs ``batches`` and ``loss``."""
    return name.removeprefix(REVERSED) in DATA_DRIVEN


__all__ = [
    "CRITERIA",
    "DATA_DRIVEN",
    "REVERSED",
    "Criterion",
    "Reversed",
    "Scores",
    "named",
    "reads_data",
    "reverse",
    "slices",
]
