"""A network in which one layer took a block's place, in training: the layer alone, or all of it."""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn


class Child(nn.Module):
    """The network; where the layer alone is trained, the rest stays in eval mode, statistics of norms included.

    Args:
        network: with the layer in it.
        layer: the one that is new.
        alone: whether only the layer is trained.
    """

    def __init__(self, network: nn.Module, layer: nn.Module, *, alone: bool) -> None:
        super().__init__()
        self.network, self.alone = network, alone
        self._names = {name for name, module in network.named_modules() if module is layer}
        for parameter in network.parameters():
            parameter.requires_grad_(not alone)
        for parameter in layer.parameters():
            parameter.requires_grad_(True)

    def train(self, mode: bool = True) -> Self:
        """Go to work, or to rest."""
        super().train(mode)
        if mode and self.alone:
            self.network.eval()
            for name in self._names:
                self.network.get_submodule(name).train()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Map what the network maps."""
        return self.network(x)
