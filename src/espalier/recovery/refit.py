"""Refit: one pass through the dense and the cut network side by side, in which every layer is fitted before it is used.

for every layer, in the order of the forward pass:
    x        what the cut network's layer reads now, behind all layers that are fitted already
    target   what the dense network's layer computes, at the outputs that were kept,
             plus what the cut network lacks in the value that is added to it (a shortcut)
    W <- W + argmin_D |target - (W + D) x|^2 + ridge,       the ridge chosen on held-out batches
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..core import ModelError
from ..graph.probes.regressions import KINDS, Call, Rows
from ..graph.recording.running import evaluating
from .normal_equations import Moments, choose
from .pair import Pair
from .sites import Site
from .walks import Stop, Walk


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How layers are fitted.

    Attributes:
        positions: output positions (pixels, tokens) drawn from each batch, a layer.
        held_out_ratio: share of the batches, the last ones, on which the ridge is chosen; at least one batch, and
            never all.
        ridges: candidates, relative to the features' own squares.
        most_features: a layer that reads more (channels a group times kernel positions) stays as it is: its equations
            hold a matrix of their square.
        shortcuts: make up for what the value that is added to a layer's output lacks.
        seed: of the positions.

    Raises:
        ModelError: a value is out of range.
    """

    positions: int = 2048
    held_out_ratio: float = 0.25
    ridges: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    most_features: int = 8192
    shortcuts: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no layer can be fitted with."""
        if self.positions < 1 or self.most_features < 1:
            raise ModelError("Fit: positions and most_features are whole numbers, at least 1")
        if not 0.0 < self.held_out_ratio < 1.0 or not self.ridges or min(self.ridges) <= 0.0:
            raise ModelError("Fit: held_out_ratio lies between 0 and 1, and ridges are one or more numbers above 0")


@dataclass(frozen=True)
class Refitted:
    """What became of one layer.

    Attributes:
        weight: name of its weight.
        before, after: squared error on held-out batches, relative to the target's variance.
        ridge: the chosen one; None where the layer stays as it was.
        reason: why the layer stays as it was, or "".
    """

    weight: str
    before: float = float("nan")
    after: float = float("nan")
    ridge: float | None = None
    reason: str = ""


DEFAULT = Fit()


def refit(pair: Pair, inputs: Sequence[Any], fit: Fit, sites: Iterable[Site]) -> list[Refitted]:
    """Fit the sites of the small network, in place, in the order of the forward pass.

    Raises:
        ModelError: fewer than two batches, or a forward pass that goes another way on another batch. The small
            network is then as it was.
    """
    if len(inputs) < 2:
        raise ModelError(f"{len(inputs)} batches to recover on: give two or more, one of which is held out")
    sites = sorted(sites, key=lambda site: site.calls)
    shared = [site for site in sites if len(site.calls) > 1]  # cannot be fitted before its last call: a pass of its own
    report = []
    with _all_or_nothing(pair, sites), evaluating(pair.dense, pair.small), torch.no_grad():
        for own in (shared, [site for site in sites if len(site.calls) == 1]):
            report += _pass(pair, inputs, fit, own) if own else []
    return report


@contextmanager
def _all_or_nothing(pair: Pair, sites: Iterable[Site]) -> Iterator[None]:
    """Put the tensors of the sites back if anything goes wrong."""
    names = {name for site in sites for name in (site.weight, site.bias, site.norm.mean if site.norm else "") if name}
    before = {name: pair.tensors[name].detach().clone() for name in names}
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for name, tensor in before.items():
                pair.tensors[name].copy_(tensor)
        raise


def _pass(pair: Pair, inputs: Sequence[Any], fit: Fit, sites: Sequence[Site]) -> list[Refitted]:
    """Lead all batches through both networks, call by call, and fit each site at its last call."""
    by_call = {call: site for site in sites for call in site.calls}
    keep: dict[int, int] = {}
    for site in sites if fit.shortcuts else ():
        if site.addend is not None:
            keep[site.addend] = max(keep.get(site.addend, 0), site.calls[0])
    held_out = min(max(1, round(fit.held_out_ratio * len(inputs))), len(inputs) - 1)
    report, sums = [], {}
    with ExitStack() as stack:
        walks = []
        for one in inputs:
            dense = Walk(partial(pair.run, pair.dense, one), by_call, keep, after=True)
            small = Walk(partial(pair.run, pair.small, one), by_call, keep, after=False)
            walks.append((stack.enter_context(closing(dense)), stack.enter_context(closing(small))))
        for call, site in sorted(by_call.items()):
            for number, (dense, small) in enumerate(walks):
                generator = torch.Generator().manual_seed(hash((fit.seed, call, number)) % 2**63)
                theirs, _ = _at(dense.advance(), call, site, pair.originals)
                ours, bound = _at(small.advance(), call, site, pair.tensors)
                key = site.weight, number >= len(walks) - held_out
                moments = _moments(pair, site, theirs, ours.kept, bound, generator, fit.positions)
                sums[key] = sums[key] + moments if key in sums else moments
            if call == site.calls[-1]:
                report.append(_fit_one(pair, site, fit, sums.pop((site.weight, False)), sums.pop((site.weight, True))))
    return report


def _at(stop: Stop | None, call: int, site: Site, tensors: Mapping[str, Tensor]) -> tuple[Stop, Call]:
    """Return where a walk stands and the call's arguments by name, if it is the call of this site indeed."""
    if stop is not None and stop.index == call:
        weight = tensors[site.weight]
        bound = site.kind.bind(stop.args, stop.kwargs, lambda item: item is weight)
        if KINDS.get(stop.name) is site.kind and bound.get("weight") is weight:
            return stop, bound
    raise ModelError(
        f"the forward pass goes another way on another batch: {site.weight!r} was not applied where it was on the "
        "first batch. Least squares needs the same function calls in the same order; leave it out for this model"
    )


def _moments(
    pair: Pair,
    site: Site,
    dense: Stop,
    kept: Mapping[int, Tensor],
    call: Call,
    generator: torch.Generator,
    positions: int,
) -> Moments:
    """Return the sums of one call on one batch."""
    weight = pair.tensors[site.weight]
    value = site.kind.by_position(dense.result, weight)
    rows = _drawn(value.shape[:-1], positions, generator, value.device)
    precision = torch.promote_types(weight.dtype, torch.float32)
    target = pair.channels(site, value[rows].reshape(-1, value.shape[-1])).to(weight.device, precision)
    if site.weight in pair.factors:
        target = target * pair.factors[site.weight].to(target)
    if site.addend is not None and site.addend in dense.kept:
        target = target + _lack(pair, site, dense.kept[site.addend], kept[site.addend], rows)
    x = site.kind.features(call, tuple(index.to(weight.device) for index in rows)).to(precision)
    matrix = site.kind.matrix(weight, site.groups).to(precision)
    target = target.reshape(len(target), *matrix.shape[:2]).movedim(0, 1)
    now = x @ matrix.mT
    bias = call.get("bias")
    if bias is not None:
        now = now + bias.to(precision).reshape(len(matrix), 1, -1)
    if site.bias or site.norm:
        x = torch.cat([x, x.new_ones(*x.shape[:2], 1)], 2)
    return Moments.of(x, target - now, target)


def _drawn(shape: Sequence[int], most: int, generator: torch.Generator, device: torch.device) -> Rows:
    """Return random positions of an output, all of them where they are few."""
    if not len(shape):
        return ()
    count = prod(shape)
    drawn = torch.randint(count, (most,), generator=generator) if count > most else torch.arange(count)
    return torch.unravel_index(drawn.to(device), tuple(shape))


def _lack(pair: Pair, site: Site, theirs: Tensor, ours: Tensor, rows: Rows) -> Tensor:
    """Return what the cut network lacks in the value that is added to a site's output, as the site would give it."""
    weight = pair.tensors[site.weight]
    theirs, ours = (site.kind.by_position(value, weight) for value in (theirs, ours))
    own = ours[tuple(index.to(ours.device) for index in rows)].reshape(-1, ours.shape[-1])
    lack = pair.channels(site, theirs[rows].reshape(-1, theirs.shape[-1])).to(own) - own
    gain = _gain(pair, site)
    return lack if gain is None else torch.where(gain.abs() > 1e-6, lack / gain, 0.0).to(lack)


def _gain(pair: Pair, site: Site) -> Tensor | None:
    """Return what the batch norm that follows multiplies each output by."""
    if site.norm is None:
        return None
    scale, variance = pair.tensors[site.norm.weight].double(), pair.tensors[site.norm.variance].double()
    return scale * (variance + site.norm.eps).rsqrt()


def _fit_one(pair: Pair, site: Site, fit: Fit, fitted: Moments, held_out: Moments) -> Refitted:
    """Solve for one site and write what was found."""
    gain = _gain(pair, site)
    counts = None if gain is None else gain.square().reshape(held_out.residual.shape)
    found = choose(fitted, held_out, fit.ridges, counts)
    if found.change is None:
        return Refitted(site.weight, found.before, found.after, reason="no change did better on the held-out batches")
    weight = pair.tensors[site.weight]
    matrix = site.kind.matrix(weight, site.groups)
    features = matrix.shape[2]
    weight.copy_(site.kind.restore(matrix.double() + found.change[..., :features], weight.shape))
    if features < found.change.shape[2]:
        offset = found.change[..., features].flatten()
        if site.bias:
            pair.tensors[site.bias] += offset.reshape(pair.tensors[site.bias].shape)
        elif site.norm:
            pair.tensors[site.norm.mean] -= offset
    return Refitted(site.weight, found.before, found.after, found.ridge)
