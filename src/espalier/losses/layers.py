"""Layers: which of the teacher's layers are compared with which of the student's, and channel by channel how.

    surgery on the student, relative to the teacher ──▶ kept units of the teacher ──▶ kept channels of every feature

Layers go together by module name, which a cut does not change. Where no surgery leads from the teacher to the student,
nothing is guessed: the user names the layers, and the channels stay unmatched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from torch import nn

from ..core import CutError, Surgery, UnknownNameError
from ..graph import Graph, trace
from ..graph.probes.features import Feature, features, kept_positions, surviving
from ..graph.recording.tensors import named_tensors
from .attachment import Call
from .errors import DistillationError

Named = tuple[str | tuple[str, str], ...]  # a layer of both, or (the teacher's, the student's)

_STAGE = 1.5  # pixels or tokens a sample change by this factor where a stage ends; a class token more is no new stage


@dataclass(frozen=True, eq=False)
class Match:
    """A layer of the teacher and one of the student.

    Attributes:
        teacher, student: dotted names.
        channel: the dimension of the teacher's channels; None where several dimensions carry them.
        channels: of the teacher.
        kept: ``{dimension: the teacher's positions that the student has}``, where not all; None if no record tells.
    """

    teacher: str
    student: str
    channel: int | None
    channels: int
    kept: Mapping[int, tuple[int, ...]] | None

    def __str__(self) -> str:
        names = self.teacher if self.teacher == self.student else f"{self.teacher} -> {self.student}"
        if self.kept is None or self.channel is None:
            return names
        return f"{names}: {len(self.kept.get(self.channel, range(self.channels)))} of {self.channels} channels"


def match_layers(teacher: nn.Module, student: nn.Module, call: Call, named: Named, stages: int) -> list[Match]:
    """Return the layers to compare.

    Args:
        teacher: untouched.
        student: carries ``espalier_surgery`` if it was cut.
        call: how the networks are called.
        named: layers by name; where empty, ``stages`` stage ends that both networks have.
        stages: how many layers are wanted at most.

    Raises:
        UnknownNameError: a named layer that is not there, or does not run exactly once a forward.
        DistillationError: no layers are named, and the student is no cut of the teacher.
    """
    graph = trace(teacher, call.example, call.forward_fn)
    found = features(graph)
    alive = _alive(graph, teacher, student)
    if isinstance(alive, str) and not named:
        raise DistillationError(
            f"{alive}: name the layers to compare, (teacher's, student's): layers=(('layer3', 'stage2'),)"
        )
    modules = dict(student.named_modules())
    pairs = [(n, n) if isinstance(n, str) else (n[0], n[1]) for n in named or stage_ends(graph, found.values(), stages)]
    if not pairs:
        raise DistillationError(f"no module of {type(teacher).__name__} runs once a forward and returns channels")
    for ours, theirs in pairs:
        if ours not in found:
            raise UnknownNameError(
                "layer", ours, found, "It must run once a forward and compute the tensor it returns."
            )
        if theirs not in modules:
            raise UnknownNameError("layer of the student", theirs, modules)
    kept = {n: None if isinstance(alive, str) else kept_positions(graph, found[n], alive) for n, _ in pairs}
    return [_match(found[ours], theirs, kept[ours] if ours == theirs else None) for ours, theirs in pairs]


def stage_ends(graph: Graph, found: Iterable[Feature], count: int) -> list[str]:
    """Return the last ``count`` modules at which stages of the network end.

    Candidates are the features through which all goes that the model returns, that have pixels or tokens, and whose
    channels are not the answer's; each wish holds only where some feature fulfils it. A stage ends where the number of
    pixels or tokens next changes by a factor of 1.5 or more. Of one stage only, ``count`` candidates are taken, evenly
    spread over its depth.
    """
    outputs = set(graph.records[0].outputs)
    usable = [f for f in found if f.channel is not None and f.value not in outputs]
    usable = [f for f in usable if f.trunk] or usable
    usable = [f for f in usable if f.positions > 1] or usable
    usable = [f for f in usable if not f.answer] or usable
    candidates = list({f.value: f for f in usable}.values())  # of modules that return the same tensor the outermost
    if not candidates:
        return []
    ends = [a for a, b in pairwise(candidates) if not 1 / _STAGE < b.positions / a.positions < _STAGE]
    if ends:
        return [one.module for one in [*ends, candidates[-1]][-count:]]
    picks = min(count, len(candidates))
    return [candidates[round((i + 1) * len(candidates) / picks) - 1].module for i in range(picks)]


def _match(feature: Feature, student: str, kept: Mapping[int, tuple[int, ...]] | None) -> Match:
    channels = 0 if feature.channel is None else feature.shape[feature.channel]
    return Match(feature.module, student, feature.channel, channels, kept)


def _alive(graph: Graph, teacher: nn.Module, student: nn.Module) -> np.ndarray | str:
    """Return which of the teacher's units the student has, or in words why nothing tells."""
    done, earlier = (getattr(model, "espalier_surgery", None) or Surgery() for model in (student, teacher))
    try:
        alive = surviving(graph, done.since(earlier))
    except (CutError, ValueError) as error:
        return f"the student was not cut from this teacher ({error})"
    tensors = named_tensors(student)
    for name, dims in graph.leaves.items():
        shape = tuple(int(graph.kept(dim, alive).sum()) for dim in dims)
        if name not in tensors or tuple(tensors[name].shape) != shape:
            has = f"is {tuple(tensors[name].shape)}" if name in tensors else "is missing"
            return f"the student was not cut from this teacher (its {name!r} {has}, and should be {shape})"
    return alive
