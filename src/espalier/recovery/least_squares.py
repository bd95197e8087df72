"""Least squares: the weights of a cut network, fitted so that what is left reproduces what the dense one computed."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from torch import nn

from ..core import Plan
from ..graph import Graph
from ..graph.masks import masks_of
from ..graph.recording.running import evaluating
from ..graph.sharing import sharing_of
from .pair import Pair
from .refit import DEFAULT, Fit, Refitted, refit
from .sites import Seen, Site, find_sites, scout

_OTHER_WAY = "the cut network calls other functions than the dense one, so its layers cannot be told which is which"


def least_squares(
    dense: nn.Module,
    small: nn.Module,
    graph: Graph,
    plan: Plan,
    batches: Iterable[tuple[Any, Any]],
    *,
    fit: Fit = DEFAULT,
) -> list[Refitted]:
    """Fit the linear and convolution layers of a cut network, in place, to the pre-activations of the dense one.

        W, b <- argmin  sum over samples, positions |W_dense x_dense + s_dense - s_small - (W x_small + b)|^2 + ridge

    Layer after layer in the order of the forward pass, so that each one also makes up for what those before it could
    not: x_small is what the layer reads behind all that is fitted already, and s is what is added to its output (a
    shortcut), where that exists beforehand. Only outputs that were kept count. An offset goes into the layer's bias, or
    into the running mean of the batch norm behind it; a layer that has neither gets none. The ridge draws towards the
    weights as they are, and a layer that does no better on held-out batches stays as it is: no layer gets worse there.
    Convolutions of every kind, grouped, depthwise and transposed; products with a matrix; weights used several times.

    All batches advance together and are held in memory with their activations: some hundred to a few thousand samples
    of the training split do. Do not re-estimate batch norm afterwards: the fit has less variance than its target, as
    every regression has, and renormalising blows its noise up.

    Source: the refit of He et al., Channel Pruning, ICCV 2017, arXiv:1707.06168, section 3.1, with inputs of the pruned
    network and targets of the dense one as in its section 3.2. Recalled, not re-checked against the paper's text.
    Differs: (1) every layer behind the first cut is fitted, not only those that read cut channels; (2) a ridge towards
    the present weights, chosen on held-out batches; (3) shortcuts of any shape that are computed before the layer.

    Args:
        dense: the network that ``graph`` was traced from.
        small: what ``cut`` made of it by ``plan``.
        graph: from ``trace``.
        plan: which units were kept.
        batches: pairs (inputs, targets); inputs are a tensor, a tuple (positional) or a dict (keywords). Two or more.
        fit: how many positions are drawn, which share is held out, which ridges are tried.

    Returns:
        A line a layer, in the order of the forward pass, after those that are refused; what stays as it was says why.

    Raises:
        ModelError: ``small`` is not what ``plan`` makes of ``dense``; fewer than two batches; or a forward pass that
            differs from batch to batch. ``small`` is then as it was.
    """
    inputs = [one for one, _ in batches]
    pair = Pair.of(dense, small, graph, plan)
    sites, refused, seen = _found(pair, inputs, fit, scales=False)
    cut = {name for name, _ in pair.kept}
    first = min((site.calls[0] for site in sites if site.weight in cut), default=0)
    early = {site.weight: "nothing before it was cut" for site in sites if site.calls[0] < first}
    given = {name for name, _ in pair.kept if pair.tensors[name].dim() > 1} - {site.weight for site in sites}
    for name in sorted(given - refused.keys()):
        functions = dict.fromkeys(seen.names[call] for call in seen.uses.get(name, ()))
        refused[name] = f"it is given to {', '.join(functions) or 'no function'}, which is no layer that can be fitted"
    return _report(pair, inputs, fit, [site for site in sites if site.weight not in early], {**early, **refused})


def rescale_statistics(
    dense: nn.Module,
    small: nn.Module,
    graph: Graph,
    plan: Plan,
    batches: Iterable[tuple[Any, Any]],
    *,
    fit: Fit = DEFAULT,
) -> list[Refitted]:
    """Fit the scales and shifts of norms whose statistics are taken over a cut group, in place.

        scale_c, shift_c <- argmin  sum over positions |y_dense[c] - (scale_c x_c + shift_c)|^2 + ridge

    x is the cut network's normalised activation. A layer norm over fewer channels divides by another deviation and
    subtracts another mean; this puts every channel back to what it was, on average. Layer, RMS and group norms, and a
    scale that Python multiplies by. ``least_squares`` on the layers behind a norm does the same and more; this is for
    where they are to stay as they are.

    Args and errors are those of ``least_squares``; the lines are of norms, and of groups in which none was found.
    """
    inputs = [one for one, _ in batches]
    pair = Pair.of(dense, small, graph, plan)
    sites, refused, _ = _found(pair, inputs, fit, scales=True)
    groups = [graph.groups[name] for name in plan.keep if graph.groups[name].statistics]
    cut = {name for name, _ in pair.kept} & {slot.tensor for group in groups for slot in group.slots}
    found = [site for site in sites if site.weight in cut and pair.tensors[site.weight].dim() == 1]
    reasons = {name: reason for name, reason in refused.items() if name in cut}
    for group in groups:
        if not {slot.tensor for slot in group.slots} & {site.weight for site in found}:
            reasons[group.name] = "no norm with a weight a channel is taken over this group"
    return _report(pair, inputs, fit, found, reasons)


def _found(pair: Pair, inputs: list[Any], fit: Fit, *, scales: bool) -> tuple[list[Site], dict[str, str], Seen]:
    """Return the sites that may be fitted, why others may not, and the small network's forward pass."""
    if not inputs:
        return [], {}, Seen()
    with evaluating(pair.dense, pair.small):
        theirs, ours = (scout(model, partial(pair.run, model, inputs[0])) for model in (pair.dense, pair.small))
    sites, refused = find_sites(ours, scales=scales)
    frozen = pair.frozen()
    for site in sites:
        if theirs.names != ours.names:
            refused[site.weight] = _OTHER_WAY
        elif site.weight in frozen:
            refused[site.weight] = "it is frozen, and others are not"
        elif not scales and site.weight in masks_of(pair.small).kept:
            refused[site.weight] = "it is masked, and a fit of the whole would fill its zeros"
        elif not scales and site.weight in sharing_of(pair.small).symbols:
            refused[site.weight] = "it is clustered, and a fit of the whole would give every weight a value of its own"
        elif site.kind.rank not in (0, pair.tensors[site.weight].dim()):
            refused[site.weight] = "it is not one matrix"
        elif (features := site.kind.matrix(pair.tensors[site.weight], site.groups).shape[2]) > fit.most_features:
            refused[site.weight] = f"it reads {features} features, more than Fit.most_features"
    return [site for site in sites if site.weight not in refused], refused, ours


def _report(pair: Pair, inputs: list[Any], fit: Fit, sites: list[Site], reasons: dict[str, str]) -> list[Refitted]:
    """Fit the sites and add the lines of what is not fitted."""
    report = [Refitted(name, reason=reason) for name, reason in reasons.items()]
    return report + refit(pair, inputs, fit, sites)
