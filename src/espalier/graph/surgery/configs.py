"""Configs: after a cut, a config object says what the network has become, where one value says it for all layers.

    model.config ──copy, ints tagged, type(model)(config)──▶ which sizes come from which attribute
                 ──solve (describing.py)──▶ new values ──type(model)(config) again──▶ is it the cut network, whole?

What the rebuilt network does not share with the cut one (likeness.py) is said in a note: the config does not describe
the network then, and whoever rebuilds from it gets another one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from ...core import Plan, SetAttribute, Surgery
from ..recording.sizes import Size, describe, leaves
from ..recording.skeleton import config_entries, is_config, public_sizes, tagged
from ..recording.tensors import every_name
from .describing import Description, Key, Observation, describe_sizes
from .likeness import Likeness, Part, dotted, items_in, same_shapes
from .rebuild import Rebuilt, rebuild

if TYPE_CHECKING:
    from ..graph import Graph

_REASONS = 3  # of a kind, in a note


@dataclass
class ConfigChanges:
    """What to write so that configs describe a cut network.

    Attributes:
        attributes: of configs, and ints of modules that nothing computes with and that follow a config.
        notes: which configs do not describe the network, and why.
    """

    attributes: dict[Key, SetAttribute] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def config_changes(model: nn.Module, graph: Graph, plan: Plan, surgery: Surgery) -> ConfigChanges:
    """Return what a plan means for the configs of the model: of the topmost modules that hold one as ``config``.

    Args:
        model: the traced model or any copy of it.
        graph: remembers the answer, for the copies on which the plan is proved.
        plan: which units each group keeps.
        surgery: the plan's, standard layers' attributes included.
    """
    known = vars(graph).setdefault("config_changes", {})
    question = _question(plan, any(tensor.is_meta for tensor in model.parameters()))
    if question not in known:
        known[question] = changes = ConfigChanges()
        if surgery.slices:
            first: dict[int, str] = {}
            for name, tensor in every_name(model):
                first.setdefault(id(tensor), name)
            for path, module in _configured(model):
                _Configured(model, Part(graph, surgery, path, module, first)).change(changes)
    return known[question]


def config_notes(model: nn.Module, graph: Graph, plan: Plan) -> tuple[str, ...]:
    """Return which configs of a model that was cut by a plan no longer describe it."""
    question = _question(plan, any(tensor.is_meta for tensor in model.parameters()))
    return tuple(vars(graph)["config_changes"][question].notes)


def _question(plan: Plan, on_meta: bool) -> tuple[frozenset, bool]:
    return frozenset(plan.keep.items()), on_meta  # without data, tables cannot be compared


def _configured(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the topmost modules with a config."""
    above: list[str] = []
    for path, module in model.named_modules():
        if is_config(vars(module).get("config")) and not any(path.startswith(root) for root in above):
            above.append(f"{path}." if path else "")
            yield path, module


class _Configured:
    """One module with a config, and what a surgery means for it."""

    def __init__(self, model: nn.Module, part: Part) -> None:
        self.part, self.module = part, part.module
        self.config: Any = part.module.config
        places = {(id(holder), name): (owner, at) for holder, name, owner, at in public_sizes(model)}
        self.places = [places[id(holder), name] for holder, name, _ in config_entries(self.config)]

    def change(self, changes: ConfigChanges) -> None:
        """Add what to write, and a note if the config cannot say all of it."""
        try:
            before = self._made_by_tags()
        except Exception as error:
            if hasattr(self.module, "save_pretrained"):
                changes.notes.append(self._note([f"nothing can be built from it ({_short(error)})"]))
            return
        if not same_shapes(self.module, before.module):
            changes.notes.append(self._note(["it did not describe the network before this cut either"]))
            return
        found = describe_sizes(list(self._observations(before)), self.part.graph.originals)
        try:
            likeness = Likeness(self.part, before.module, self._made_by(found))
            if likeness.sizes.keys() - found.doubtful:
                found = found.certain()
                likeness = Likeness(self.part, before.module, self._made_by(found))
        except Exception as error:
            self._write(found.certain().values, changes)
            changes.notes.append(self._note([*_reasons(found), f"nothing can be built from it ({_short(error)})"]))
            return
        self._write({**likeness.followers, **found.values}, changes)
        reasons = _reasons(found)  # causes; what follows from them need not be said
        if not reasons:
            kinds = list(likeness.sizes.values()), likeness.decisions, likeness.values
            reasons = [reason for kind in kinds for reason in kind[:_REASONS]]
        if reasons:
            changes.notes.append(self._note(reasons))

    def _made_by_tags(self) -> Rebuilt:
        """Return what the class makes of the config as it is, with ints that remember their place."""
        twin = copy.deepcopy(self.config)
        for (holder, name, _), place in zip(list(config_entries(twin)), self.places, strict=True):
            holder[name] = tagged(holder[name], *place)
        return rebuild(type(self.module), twin)

    def _made_by(self, found: Description) -> nn.Module:
        """Return what the class makes of the config with new values, after it has been through a file."""
        twin: Any = copy.deepcopy(self.config)
        for (holder, name, _), (module, path) in zip(list(config_entries(twin)), self.places, strict=True):
            if isinstance(holder[name], list | tuple):
                items = [found.values.get((module, at), item) for at, item in items_in(path, holder[name])]
                holder[name] = type(holder[name])(items)
            else:
                holder[name] = found.values.get((module, path), holder[name])
        if hasattr(twin, "to_dict") and hasattr(twin, "from_dict"):
            twin = type(twin).from_dict(twin.to_dict())
        return rebuild(type(self.module), twin).module

    def _observations(self, twin: Rebuilt) -> Iterator[Observation]:
        """Yield every size that the config gives and that is known after the cut."""
        part, tensors = self.part, dict(every_name(self.module))
        for name, exprs in twin.sizes.items():
            if part.first[id(tensors[name])] not in part.graph.leaves:
                continue  # nothing reads it: it need not be as wide as the network
            for expr, size in zip(exprs, part.shape(tensors[name]), strict=True):
                if any(True for _ in leaves(expr)):
                    yield Observation(expr, size, part.name(name))
        for holder, name, module, path in public_sizes(twin.module):
            for at, item in items_in(path, holder[name]):
                key = (part.name(module), at)
                if isinstance(item, Size) and key in part.sizes and part.must_be(key):
                    yield Observation(item.expr, part.sizes[key], dotted(key))

    def _write(self, values: Mapping[Key, int], changes: ConfigChanges) -> None:
        for key, value in values.items():
            if self.part.sizes.get(key, value) != value:
                changes.attributes[key] = SetAttribute(*key, value)

    def _note(self, reasons: list[str]) -> str:
        what = f"{self.part.name('config')} of {type(self.module).__name__}"
        if hasattr(self.module, "save_pretrained"):
            so = "save_pretrained, from_pretrained and generate() with a static cache do not apply"
        else:
            so = "the network cannot be rebuilt from it"
        return f"{what} no longer describes the network: {'; '.join(reasons)}. So {so}: use es.save and es.load"


def _reasons(found: Description) -> list[str]:
    reasons = []
    for key, places in found.unequal.items():
        wanted = [f"{value} for {where}" for value, where in places.items()]
        reasons.append(f"{dotted(key)} would be {' and '.join(wanted[:_REASONS])}")
    for one in found.broken[:_REASONS]:
        reasons.append(f"{one.where} has {one.size} where it gives {describe(one.expr)}")
    return reasons


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
