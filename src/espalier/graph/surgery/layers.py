"""Attributes of standard layers that describe their weights."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules import batchnorm, conv

from ...core import Plan, SetAttribute, Surgery
from ..recording.tensors import every_name
from .configs import config_changes

if TYPE_CHECKING:
    from ..graph import Graph

Size = Callable[[str, int], Any]  # size of a dimension of one of the layer's tensors: a number or polynomial; or None


def whole_surgery(model: nn.Module, graph: Graph, plan: Plan) -> Surgery:
    """Return what a plan does to this model: tensors, sizes that Python computes with, sizes that describe.

    What describes is of two kinds: attributes of standard layers, and config objects that one value suits everywhere.
    """
    surgery = graph.surgery(plan)
    surgery = Surgery(surgery.slices, {**follow_weights(model, surgery, graph.computed), **surgery.attributes})
    configs = config_changes(model, graph, plan, surgery)
    return Surgery(surgery.slices, {**configs.attributes, **surgery.attributes})


def follow_weights(
    model: nn.Module, surgery: Surgery, computed: Container[tuple] = ()
) -> dict[tuple[str, tuple], SetAttribute]:
    """Return the attribute changes by which standard layers go on describing their sliced weights.

    Attributes in ``computed`` are left to provenance: the model's Python computes sizes with them.
    """
    return {
        (path, (name,)): SetAttribute(path, (name,), new)
        for path, name, old, new in _descriptions(model, surgery)
        if old != new and (path, (name,)) not in computed
    }


def contradictions(model: nn.Module, surgery: Surgery) -> Iterator[str]:
    """Yield what standard layers would wrongly say of their weights after ``surgery`` and say rightly now."""
    right = {(path, name) for path, name, old, new in _descriptions(model, Surgery()) if old == new}
    told = {(path, name): (old, new) for path, name, old, new in _descriptions(model, surgery)}
    for (path, name), (old, new) in told.items():
        if name == "embed_dim" and isinstance(model.get_submodule(path), nn.MultiheadAttention):
            continue  # the width inside the heads may differ from the width outside; its forward checks which is meant
        said = _said(surgery, path, name, old)
        if said != new and (path, name) in right:
            yield f"{path}.{name}".lstrip(".") + f" would be {said!r}, and its tensors say {new!r}"


def _said(surgery: Surgery, path: str, name: str, old: Any) -> Any:
    """Return an attribute after ``surgery``, which may set it whole, or one item of it after another."""
    for (module, steps), change in surgery.attributes.items():
        if module == path and steps[:1] == (name,):
            if len(steps) == 1:
                old = change.value
            elif isinstance(old, tuple) and len(steps) == 2 and isinstance(steps[1], int):
                old = (*old[: steps[1]], change.value, *old[steps[1] + 1 :])
    return old


def _descriptions(model: nn.Module, surgery: Surgery) -> Iterator[tuple[str, str, Any, int | tuple]]:
    """Yield (module, attribute, its value now, what the layer's tensors say after the surgery)."""
    first: dict[int, str] = {}
    sizes: dict[tuple[str, int], int] = {}
    for name, tensor in every_name(model):
        canonical = first.setdefault(id(tensor), name)
        for d, n in enumerate(tensor.shape):
            cut = surgery.slices.get((canonical, d))
            sizes[name, d] = len(cut.keep) if cut else n
    for (path, name), change in surgery.attributes.items():
        if name == ("groups",):
            sizes[f"{path}.groups" if path else "groups", -1] = int(change.value)  # type: ignore[arg-type]
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        for name, new in described(module, lambda tensor, d, p=prefix: sizes.get((p + tensor, d))):
            if new is not None and name in vars(module):
                yield path, name, getattr(module, name), new


def described(module: nn.Module, size: Size) -> Iterator[tuple[str, Any]]:
    """Yield ``(attribute, what the layer's tensors say)``; ``size`` gives a number, or a polynomial."""
    for kinds, describe in _DESCRIPTIONS.items():
        if isinstance(module, kinds):
            yield from describe(module, size)


def _linear(_: nn.Module, size: Size) -> Iterator[tuple[str, int | None]]:
    for weight in ("weight", "weight_v", "parametrizations.weight.original", "parametrizations.weight.original1"):
        if size(weight, 1) is not None:
            yield "out_features", size(weight, 0)
            yield "in_features", size(weight, 1)


def _convolution(module: conv._ConvNd, size: Size) -> Iterator[tuple[str, int | None]]:
    for weight in ("weight", "weight_v", "parametrizations.weight.original", "parametrizations.weight.original1"):
        rows, columns = size(weight, 0), size(weight, 1)
        if rows is None or columns is None:
            continue
        groups = size("groups", -1) or int(module.groups)  # provenance has said how many groups are left
        if module.transposed:
            whole, part = ("in_channels", rows), ("out_channels", columns)
        else:
            whole, part = ("out_channels", rows), ("in_channels", columns)
        yield whole
        yield part[0], part[1] * groups


def _batch_norm(_: nn.Module, size: Size) -> Iterator[tuple[str, int | None]]:
    yield "num_features", size("weight", 0) or size("running_mean", 0)


def _group_norm(_: nn.Module, size: Size) -> Iterator[tuple[str, int | None]]:
    yield "num_channels", size("weight", 0)


def _layer_norm(module: nn.LayerNorm, size: Size) -> Iterator[tuple[str, tuple | None]]:
    if size("weight", 0) is not None:
        yield "normalized_shape", tuple(size("weight", d) for d in range(len(module.normalized_shape)))


def _slopes(_: nn.Module, size: Size) -> Iterator[tuple[str, int | None]]:
    yield "num_parameters", size("weight", 0)


def _bilinear(_: nn.Module, size: Size) -> Iterator[tuple[str, int | None]]:
    yield from ((name, size("weight", d)) for d, name in enumerate(("out_features", "in1_features", "in2_features")))


def _embedding(_: nn.Module, size: Size) -> Iterator[tuple[str, int | None]]:
    yield "num_embeddings", size("weight", 0)
    yield "embedding_dim", size("weight", 1)


def _recurrent(module: nn.RNNBase, size: Size) -> Iterator[tuple[str, int | None]]:
    suffix = "_l0" if isinstance(module, nn.RNNBase) else ""
    rows, old = size(f"weight_hh{suffix}", 0), getattr(module, f"weight_hh{suffix}").shape[0]
    gates = old // module.hidden_size
    yield "hidden_size", rows // gates if rows else None
    yield "input_size", size(f"weight_ih{suffix}", 1)
    if getattr(module, "proj_size", 0):
        yield "proj_size", size("weight_hr_l0", 0)


def _attention(module: nn.Module, size: Size) -> Iterator[tuple[str, int | None]]:
    yield "embed_dim", size("out_proj.weight", 0)
    for name, own in (("kdim", "k_proj_weight"), ("vdim", "v_proj_weight")):
        yield name, size(own, 1) or size("in_proj_weight", 1)


_DESCRIPTIONS: Mapping[type | tuple[type, ...], Callable] = {
    nn.Linear: _linear,
    conv._ConvNd: _convolution,
    batchnorm._NormBase: _batch_norm,
    nn.GroupNorm: _group_norm,
    (nn.LayerNorm, nn.RMSNorm): _layer_norm,
    (nn.Embedding, nn.EmbeddingBag): _embedding,
    nn.PReLU: _slopes,
    nn.Bilinear: _bilinear,
    (nn.RNNBase, nn.RNNCellBase): _recurrent,
    nn.MultiheadAttention: _attention,
}
