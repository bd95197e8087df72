"""Sites: where a network applies its own weights, seen as the function calls of one forward pass.

call 12  conv2d(x, weight)          a site; its result is read by call 13 alone
call 13  batch_norm(., mean, ...)   so a constant offset of the site can go into the running mean
call 14  add(., shortcut)           so the site can also make up for what the shortcut lacks
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..graph.probes.regressions import KINDS, Kind
from ..graph.recording.record import rebuild, walk
from ..graph.recording.tensors import named_tensors
from .walks import asks

_BATCH_NORM = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
_ADDS = {"add", "__add__", "__radd__", "__iadd__", "add_"}
_PASSES_ON = {"dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout", "contiguous"}
OTHER = object()  # a tensor that is not the model's own, in a recorded call


@dataclass(frozen=True, kw_only=True)
class Norm:
    """The batch norm that alone reads a site's output: names of its tensors, and its epsilon."""

    mean: str
    variance: str
    weight: str
    eps: float


@dataclass(frozen=True, kw_only=True)
class Site:
    """A weight of the model and the calls that apply it.

    Attributes:
        weight: its name.
        kind: how it is applied.
        calls: numbers of the function calls.
        groups: of a grouped convolution, in this network.
        bias: name of the layer's own bias, or "".
        norm: the batch norm that follows, or None.
        addend: number of the call that made what is added to the output (behind the norm), or None.
    """

    weight: str
    kind: Kind
    calls: tuple[int, ...]
    groups: int = 1
    bias: str = ""
    norm: Norm | None = None
    addend: int | None = None


@dataclass(eq=False)
class Seen:
    """One forward pass as a list of function calls.

    Attributes:
        names: of the functions.
        calls: ``{number: (args, kwargs)}`` of calls that are given a tensor of the model: those as ``Named``, other
            tensors as ``OTHER``.
        uses: ``{tensor name: numbers of the calls that are given it}``.
        readers: ``{number of a call: numbers of the calls that read its result}``.
        addends: ``{number of an addition: numbers of the calls that returned its operands, None where unknown}``.
    """

    names: list[str] = field(default_factory=list)
    calls: dict[int, tuple[tuple, dict]] = field(default_factory=dict)
    uses: dict[str, list[int]] = field(default_factory=dict)
    readers: dict[int, list[int]] = field(default_factory=dict)
    addends: dict[int, list[int | None]] = field(default_factory=dict)


class Named(str):
    """The name of a tensor of the model, where a call was given that tensor."""


class _Scout(TorchFunctionMode):
    """Sees one forward pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.seen = Seen()
        self.own = {id(tensor): (name, tensor) for name, tensor in named_tensors(model).items()}
        self.made: dict[int, tuple[weakref.ref, int, int]] = {}
        self.whole: set[int] = set()  # calls that returned one tensor, not several

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if asks(func):
            return func(*args, **kwargs)
        name, index = getattr(func, "__name__", ""), len(self.seen.names)
        self.seen.names.append(name)
        self._read(index, name, args, kwargs)
        result = func(*args, **kwargs)
        if isinstance(result, Tensor):
            self.whole.add(index)
        for item in walk(result if isinstance(result, list | tuple) else [result]):
            if isinstance(item, Tensor):
                self.made[id(item)] = weakref.ref(item), index, item._version
        return result

    def _read(self, index: int, name: str, args: tuple, kwargs: dict) -> None:
        operands = [item for item in walk((args, kwargs)) if isinstance(item, Tensor)]
        mine = dict.fromkeys(self.own[id(tensor)][0] for tensor in operands if id(tensor) in self.own)
        for one in mine:
            self.seen.uses.setdefault(one, []).append(index)
        makers = [self._maker(tensor) for tensor in operands]
        for maker in {m for m in makers if m is not None}:
            self.seen.readers.setdefault(maker, []).append(index)
        if mine:
            self.seen.calls[index] = rebuild(args, self._plain), rebuild(kwargs, self._plain)
        elif name in _ADDS and len(operands) == 2 and operands[0].shape == operands[1].shape:
            self.seen.addends[index] = [maker if maker in self.whole else None for maker in makers]

    def _maker(self, tensor: Tensor) -> int | None:
        """Return the call that made a tensor, if nothing was written into it since."""
        reference, index, version = self.made.get(id(tensor), (None, 0, 0))
        return index if reference is not None and reference() is tensor and tensor._version == version else None

    def _plain(self, item: Any) -> Any:
        if isinstance(item, Tensor):
            return Named(self.own[id(item)][0]) if id(item) in self.own else OTHER
        return item


def scout(model: nn.Module, run: Callable[[], Any]) -> Seen:
    """Return the function calls of one forward pass, made by ``run``."""
    mode = _Scout(model)
    with torch.no_grad(), mode:
        run()
    return mode.seen


def find_sites(seen: Seen, *, scales: bool) -> tuple[list[Site], dict[str, str]]:
    """Return the sites in the order in which they are first applied, and ``{weight: why it is no site}``.

    Args:
        seen: one forward pass.
        scales: find the scales of norm layers; without it the linear and convolution layers.
    """
    found: list[Site] = []
    refused: dict[str, str] = {}
    for tensor, calls in seen.uses.items():
        kinds = {index: _kind(seen, tensor, index) for index in calls}
        wanted = {kind for kind in kinds.values() if kind is not None and kind.scales == scales}
        if not wanted:
            continue
        others = dict.fromkeys(seen.names[index] for index, kind in kinds.items() if kind is None or kind not in wanted)
        if others or len(wanted) > 1:
            refused[tensor] = f"it is also given to {', '.join(others) or 'functions of several kinds'}"
        else:
            found.append(_site(seen, tensor, calls, wanted.pop()))
    return sorted(found, key=lambda site: site.calls[0]), refused


def _kind(seen: Seen, tensor: str, index: int) -> Kind | None:
    """Return how a call applies a tensor as its weight, or None."""
    kind = KINDS.get(seen.names[index])
    if kind is None:
        return None
    call = kind.bind(*seen.calls[index], lambda item: isinstance(item, Named) and item == tensor)
    plain = call.get("weight") == tensor and call.get("input") is OTHER and kind.fits(call)
    return kind if plain else None


def _site(seen: Seen, tensor: str, calls: list[int], kind: Kind) -> Site:
    """Describe the calls of a weight; what follows them counts only where there is one."""
    bound = [kind.bind(*seen.calls[index], lambda item: isinstance(item, Named) and item == tensor) for index in calls]
    biases = {call.get("bias") for call in bound}
    own = next((str(one) for one in biases if isinstance(one, Named) and seen.uses[one] == calls), "")
    site = Site(weight=tensor, kind=kind, calls=tuple(calls), groups=bound[0].get("groups", 1), bias=own)
    if len(calls) > 1:
        return site
    norm, end = _norm_after(seen, calls[0])
    return replace(site, norm=norm, addend=_addend(seen, calls[0], end))


def _norm_after(seen: Seen, index: int) -> tuple[Norm | None, int]:
    """Return the batch norm that alone reads a call's result, and the last call on the way to where it is used."""
    after = _only_reader(seen, index)
    if after is None or seen.names[after] != "batch_norm" or after not in seen.calls:
        return None, index
    args, kwargs = seen.calls[after]
    call = {**dict(zip(_BATCH_NORM, args, strict=False)), **kwargs}
    tensors = [call.get(name) for name in ("running_mean", "running_var", "weight", "bias")]
    if call.get("training") or any(not isinstance(t, Named) or len(seen.uses[t]) > 1 for t in tensors):
        return None, index
    mean, variance, weight = map(str, tensors[:3])
    return Norm(mean=mean, variance=variance, weight=weight, eps=call.get("eps", 1e-5)), after


def _only_reader(seen: Seen, index: int) -> int | None:
    """Return the only call that uses a call's result; what hands the same values on is passed over."""
    readers = seen.readers.get(index, [])
    while len(readers) == 1 and seen.names[readers[0]] in _PASSES_ON:
        index = readers[0]
        readers = seen.readers.get(index, [])
    return readers[0] if len(readers) == 1 else None


def _addend(seen: Seen, index: int, end: int) -> int | None:
    """Return the call, made before ``index``, whose result is added to the result of ``end`` and to nothing else."""
    after = _only_reader(seen, end)
    makers = seen.addends.get(after, []) if after is not None else []
    others = [maker for maker in makers if maker is None or maker < index]
    return others[0] if len(makers) == 2 and len(others) == 1 else None
