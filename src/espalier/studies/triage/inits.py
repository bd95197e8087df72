"""How the layer that replaces a block begins.

random    as it was made: He's initialisation
mean      the mean of those of the block's kernels that have its shape
parent    fitted to the block: min over its weights of mean || block(x) - layer(x) ||^2
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .blocks import Block, features, kernels

_STEPS, _LR = 200, 0.01  # of the fit


def begin(init: str, layer: nn.Sequential, parent: nn.Module, block: Block, inputs: Sequence[Tensor]) -> str:
    """Give a fresh layer its first weights, and return what a reader should know of it ("" for nothing).

    Args:
        init: "random", "mean" or "parent".
        layer: convolution, norm, activation.
        parent: the network whose block it replaces.
        block: which one.
        inputs: training batches of the network.
    """
    if init == "mean":
        return _mean(layer, parent, block)
    if init == "parent":
        return _fitted(layer, [features(parent, block, one) for one in inputs])
    return ""


def _mean(layer: nn.Sequential, parent: nn.Module, block: Block) -> str:
    weight = layer[0].weight
    assert isinstance(weight, Tensor)
    alike = [conv.weight for conv in kernels(parent, block) if conv.weight.shape == weight.shape]
    if not alike:
        return f"{block.name}: no kernel of it has the shape of the layer, which begins at random in place of the mean"
    with torch.no_grad():
        weight.copy_(torch.stack(list(alike)).mean(0))
    return ""


def _fitted(layer: nn.Sequential, pairs: Sequence[tuple[Tensor, Tensor]]) -> str:
    """Fit by Adam, a batch a step, in the training mode of its norm, whose statistics follow."""
    layer.train()
    optimizer = torch.optim.Adam(layer.parameters(), lr=_LR)
    first = last = 0.0
    for step in range(_STEPS):
        given, wanted = pairs[step % len(pairs)]
        loss = functional.mse_loss(layer(given), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        last = float(loss.detach())
        first = first or last
    power = float(torch.cat([wanted.flatten() for _, wanted in pairs]).var())
    return f"the layer explains {100 * max(0.0, 1 - last / power):.0f} % of what the block gives" if power else ""
