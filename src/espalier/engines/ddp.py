"""DDP: every rank holds the whole network and a part of each batch; gradients are averaged while they are made.

Batch norms count their own part: rank 0's running statistics are everybody's, from before each forward pass on.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .engine import Alone
from .group import Group, Place


class Ddp(Group, Alone):
    """Whole networks behind ``DistributedDataParallel``."""

    name = "ddp"

    def __init__(self, place: Place) -> None:
        Group.__init__(self, place)

    def wrapped(self, model: nn.Module) -> nn.Module:
        """Return the wrapper, with rank 0's parameters and buffers in it; after a cut, wrap the new network."""
        return DistributedDataParallel(model, device_ids=None if self.device.type == "cpu" else [self.device])

    def accumulating(self, forward: nn.Module) -> AbstractContextManager[Any]:
        assert isinstance(forward, DistributedDataParallel)
        return forward.no_sync()
