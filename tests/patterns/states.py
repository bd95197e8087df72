"""Networks that write into their own state, in eval mode too: running averages, memories, counters, caches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .base import Net, Pattern, tokens

Write = Callable[[Net, Tensor], None]  # writes the mean of a batch (channels) into the network's state


def in_place(net: Net, new: Tensor) -> None:
    net.state.mul_(0.9).add_(new, alpha=0.1)


def assigned(net: Net, new: Tensor) -> None:
    net.state = 0.9 * net.state + 0.1 * new.detach()


def through_data(net: Net, new: Tensor) -> None:
    net.state.data = 0.9 * net.state.data + 0.1 * new.data


def counted(net: Net, new: Tensor) -> None:
    net.count += 1
    net.state += (new - net.state) / net.count


def ring(net: Net, new: Tensor) -> None:
    """A memory of three means, written in turn."""
    place = int(net.count)
    net.memory[place % 3] = new
    net.state.copy_(net.memory.mean(0))
    net.count[()] = place + 1


def clamped(net: Net, new: Tensor) -> None:
    """A constraint enforced by the forward pass itself."""
    net.one.weight.data = net.one.weight.data.clamp(-0.3, 0.3)


def only_inference(net: Net, new: Tensor) -> None:
    """Autograd refuses ``out=``: this network never trains, cut or not."""
    torch.lerp(net.state, new, 0.1, out=net.state)


def keeping(write: Write) -> Callable[[], nn.Module]:
    def run(net: Net, x: Tensor) -> Tensor:
        write(net, net.one(x).mean((0, 1)))
        return net.head((net.one(x) - net.state).relu())

    def make() -> nn.Module:
        net = Net(run, one=nn.Linear(4, 8), head=nn.Linear(8, 4))
        for name, buffer in {"state": torch.randn(8), "memory": torch.randn(3, 8), "count": torch.tensor(1)}.items():
            net.register_buffer(name, buffer)
        return net

    return make


WRITES = (in_place, assigned, through_data, counted, ring, clamped)

PATTERNS = [
    *(Pattern(name=f"state_{write.__name__}", make=keeping(write), example=tokens(4, 4), expect=1) for write in WRITES),
]
