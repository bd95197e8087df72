"""Blocks of layers in any network, and the one layer that takes the place of each.

    parent:  x ─▶ [ conv, norm, relu, conv, norm, + , relu ] ─▶ y
    child:   x ─▶ [ conv, norm, relu ]                       ─▶ y'      same channels, same size

A block is a module that is called once, maps one tensor to one tensor and holds two convolutions or more; the outermost
such module counts. A plain chain with pooling in it (VGG) is divided at the pools: ``features[0:6]``.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...core import ModelError, UnknownNameError
from ...graph.recording.running import evaluating

CONVS: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_POOLS = tuple(
    getattr(nn, f"{kind}Pool{n}d") for kind in ("Max", "Avg", "AdaptiveAvg", "AdaptiveMax") for n in (1, 2, 3)
)
_SLICE = re.compile(r"(.*)\[(\d+):(\d+)\]")


@dataclass(frozen=True)
class Block:
    """Where a block is: a module, or ``first`` to ``last`` (left out) of the children of a chain.

    Attributes:
        name: of the module, with ``[first:last]`` for a part of a chain.
        convs: convolutions in it.
    """

    name: str
    convs: int

    @property
    def place(self) -> tuple[str, int | None, int | None]:
        """The module's name, and the children where it is a part of a chain."""
        found = _SLICE.fullmatch(self.name)
        return (found[1], int(found[2]), int(found[3])) if found else (self.name, None, None)


def blocks(model: nn.Module, example: Tensor) -> list[Block]:
    """Return the blocks of a network, from input to output.

    Raises:
        ModelError: it has none.
    """
    seen = _calls(model, example)
    found = list(_search("", model, seen, root=True))
    if not found:
        raise ModelError(
            "the network has no block to replace: a module that maps one tensor to one tensor, is called once, and "
            "holds two convolutions or more"
        )
    return found


def replaced(model: nn.Module, block: Block, example: Tensor, *, kernel: int) -> tuple[nn.Module, nn.Sequential]:
    """Return a copy in which one fresh layer is in the place of a block, and that layer.

    Args:
        model: the parent; untouched.
        block: one of ``blocks``.
        example: of the network's input.
        kernel: size of the layer's, odd.

    Raises:
        UnknownNameError: the network has no such module.
        ModelError: one layer cannot give the block's output sizes.
    """
    child = copy.deepcopy(model)
    name, first, last = block.place
    inputs, outputs = features(model, block, example)
    layer = _layer(inputs, outputs, kernel)
    with torch.no_grad(), evaluating(layer):
        made = layer(inputs)
    if made.shape != outputs.shape:
        raise ModelError(
            f"{block.name} maps {tuple(inputs.shape)} to {tuple(outputs.shape)}; one layer gives {made.shape}"
        )
    if first is None:
        parent, _, own = name.rpartition(".")
        setattr(child.get_submodule(parent), own, layer)
    else:
        chain = child.get_submodule(name)
        assert isinstance(chain, nn.Sequential) and last is not None
        chain[first] = layer
        for number in range(first + 1, last):
            chain[number] = nn.Identity()
    return child, layer


def features(model: nn.Module, block: Block, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return what goes into a block and what comes out of it, in eval mode.

    Raises:
        UnknownNameError: the network has no such module.
    """
    name, first, last = block.place
    try:
        module = model.get_submodule(name)
    except AttributeError as error:
        known = [one for one, _ in model.named_modules() if one]
        raise UnknownNameError("block", block.name, known) from error
    ends = (module, module) if first is None or last is None else (module[first], module[last - 1])  # type: ignore[index]
    kept: dict[str, Tensor] = {}

    def enter(module: nn.Module, given: Any) -> None:
        kept["in"] = given[0].clone()

    def leave(module: nn.Module, given: Any, made: Any) -> None:
        kept["out"] = made.clone()

    hooks = [ends[0].register_forward_pre_hook(enter), ends[1].register_forward_hook(leave)]
    try:
        with torch.no_grad(), evaluating(model):
            model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return kept["in"], kept["out"]


def field_of(model: nn.Module, block: Block) -> int:
    """Return the kernel whose reach is that of the block's n convolutions with kernels above one: 2 n + 1."""
    return 2 * sum(max(conv.kernel_size) > 1 for conv in kernels(model, block)) + 1


def kernels(model: nn.Module, block: Block) -> list[Any]:
    """Return the convolutions of a block."""
    name, first, last = block.place
    module = model.get_submodule(name)
    parts: Sequence[nn.Module] = [module] if first is None else list(module.children())[first:last]
    return [one for part in parts for one in part.modules() if isinstance(one, CONVS)]


def _layer(inputs: Tensor, outputs: Tensor, kernel: int) -> nn.Sequential:
    """Return a convolution with norm, and a ReLU where the block's answers are not negative."""
    dims = inputs.dim() - 2
    conv, norm = CONVS[dims - 1], _NORMS[dims - 1]
    stride = tuple(-(-a // b) for a, b in zip(inputs.shape[2:], outputs.shape[2:], strict=True))
    made = conv(inputs.shape[1], outputs.shape[1], kernel, stride, padding=kernel // 2, bias=False)  # type: ignore[call-arg]
    nn.init.kaiming_normal_(made.weight)  # type: ignore[arg-type]
    return nn.Sequential(made, norm(outputs.shape[1]), nn.ReLU() if bool((outputs >= 0).all()) else nn.Identity())


def _calls(model: nn.Module, example: Tensor) -> dict[str, list[bool]]:
    """Return for each module, a call each, whether it mapped one tensor of features to another."""
    seen: dict[str, list[bool]] = {}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, given: Any, made: Any) -> None:
            plain = len(given) == 1 and all(isinstance(one, Tensor) and 3 <= one.dim() <= 5 for one in (given[0], made))
            seen.setdefault(name, []).append(plain and given[0].dim() == made.dim())

        return hook

    hooks = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()]
    try:
        with torch.no_grad(), evaluating(model):
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _search(name: str, module: nn.Module, seen: dict[str, list[bool]], *, root: bool = False) -> Iterator[Block]:
    count = sum(isinstance(one, CONVS) for one in module.modules())
    if count < 2:
        return
    children = list(module.named_children())
    if isinstance(module, nn.Sequential) and any(isinstance(child, _POOLS) for _, child in children):
        yield from _parts(name, children, seen)
    elif not root and seen.get(name) == [True]:
        yield Block(name, count)
    else:
        for own, child in children:
            yield from _search(f"{name}.{own}" if name else own, child, seen)


def _parts(name: str, children: Sequence[tuple[str, nn.Module]], seen: dict[str, list[bool]]) -> Iterator[Block]:
    """Yield the runs between the pools of a chain; a single child that holds a block of its own is searched."""
    ends = [i for i, (_, child) in enumerate(children) if isinstance(child, _POOLS)] + [len(children)]
    for first, last in zip([0, *(end + 1 for end in ends)], ends, strict=False):
        inside = [child for _, child in children[first:last]]
        count = sum(isinstance(one, CONVS) for child in inside for one in child.modules())
        if len(inside) == 1:
            yield from _search(f"{name}.{children[first][0]}" if name else children[first][0], inside[0], seen)
        elif count >= 2:
            yield Block(f"{name}[{first}:{last}]", count)
