"""A training step in bfloat16 with channels last against float32: what ``Settings`` choose where the processor can.

    python -m benchmarks.precision [--batch 64] [--rounds 9]

Processor time of one thread, the same batch, steps in turn; the ratio's median and range over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import espalier as es
from espalier.recipes.training.precision import computes_in_bfloat16

from .tables import table

NETWORKS = {"digits_cnn": (1, 8, 8), "cifar_vgg16_quarter": (3, 32, 32), "cifar_resnet20": (3, 32, 32)}


def main() -> None:
    """Time every network and print a table."""
    line = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    line.add_argument("--batch", type=int, default=64)
    line.add_argument("--rounds", type=int, default=9)
    options = line.parse_args()
    torch.set_num_threads(1)
    print(f"the processor computes in bfloat16: {computes_in_bfloat16()}\n")
    rows = [row(name, shape, options.batch, options.rounds) for name, shape in NETWORKS.items()]
    print(table(rows, ("network", "float32, ms", "bfloat16, ms", "ratio", "range")))


def row(name: str, shape: tuple[int, ...], batch: int, rounds: int) -> list[str]:
    """Return the medians of one network's steps, and their ratio within a round."""
    x, y = torch.randn(batch, *shape), torch.randint(10, (batch,))
    steps = [step(name, x, y, fast=fast) for fast in (False, True)]
    for one in steps:
        one()
    times = [[timed(one) for one in steps] for _ in range(rounds)]
    ratios = sorted(after / before for before, after in times)
    medians = [f"{1e3 * statistics.median(column):.1f}" for column in zip(*times, strict=True)]
    return [name, *medians, f"{statistics.median(ratios):.2f}", f"{ratios[0]:.2f} to {ratios[-1]:.2f}"]


def step(name: str, x: Tensor, y: Tensor, *, fast: bool) -> Callable[[], None]:
    """Return a step of SGD on a fresh network."""
    model = es.model(f"espalier:{name}").train()
    if fast:
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def go() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            loss = cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return go


def timed(action: Callable[[], None]) -> float:
    """Return the processor's seconds."""
    before = time.process_time()
    action()
    return time.process_time() - before


if __name__ == "__main__":
    main()
