"""Binary networks: packed words against floating point, and MNIST's test error and file.

    python -m benchmarks.binary [--batches 1 64] [--rounds 15] [--mnist FOLDER --epochs 25]

Speed: processor time of one thread, the same inputs, both networks in turns; the ratio's median and range over rounds.
``--mnist`` trains BinaryConnect's and BinaryNet's perceptrons of 1,024 units on the images as they are, neither shifted
nor otherwise changed, as the papers do; the test split is read once, after the last epoch. That takes about
fifteen seconds an epoch and network on one core with bfloat16.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import espalier as es
from espalier.methods import registry
from espalier.recipes import Binarize, Measure, Recipe, Save, Training
from espalier.recipes.training.precision import computes_in_bfloat16
from espalier.tasks import Augment
from espalier.transforms import popcount

from .tables import table

NETWORKS = {
    "binary_net_mlp": "binary_net",
    "binary_net_mlp_4096": "binary_net",
    "binary_connect_mlp": "binary_connect",
    "xnor_cnn": "xnor_net",
    "xnor_cnn_cifar": "xnor_net",
}
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear 1024 x 1024": (lambda: nn.Linear(1024, 1024, bias=False), (1024,)),
    "linear 4096 x 4096": (lambda: nn.Linear(4096, 4096, bias=False), (4096,)),
    "conv 3x3 64 x 64 at 32": (lambda: nn.Conv2d(64, 64, 3, padding=1, bias=False), (64, 32, 32)),
    "conv 3x3 256 x 256 at 14": (lambda: nn.Conv2d(256, 256, 3, padding=1, bias=False), (256, 14, 14)),
    "conv 3x3 512 x 512 at 7": (lambda: nn.Conv2d(512, 512, 3, padding=1, bias=False), (512, 7, 7)),
}


def main() -> None:
    """Print the tables."""
    line = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    line.add_argument("--batches", type=int, nargs="*", default=[1, 64])
    line.add_argument("--rounds", type=int, default=15)
    line.add_argument("--mnist", type=Path)
    line.add_argument("--epochs", type=int, default=25)
    options = line.parse_args()
    torch.set_num_threads(1)
    print(f"bits are counted by {popcount.kernel()}, one thread\n")
    rows = [row(*case, options.rounds) for batch in options.batches for case in cases(batch)]
    print(table(rows, ("what", "batch", "float32, ms", "packed, ms", "times faster", "range", "bytes, times fewer")))
    if options.mnist is not None:
        trained = [mnist(method, options.mnist, options.epochs) for method in ("binary_connect", "binary_net")]
        print("\n" + table(trained, ("MNIST", "epochs", "test error, %", "float32, bytes", ".esp, bytes", "times")))


def cases(batch: int) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """Yield (name, network of random binary weights, inputs)."""
    for name, (build, shape) in LAYERS.items():
        x = torch.randn(batch, *shape)
        yield name, binary(nn.Sequential(build(), build()), "binary_net", x)[1:], x  # a first layer reads numbers
    for name, method in NETWORKS.items():
        x = torch.randn(batch, *es.zoo.input_shape(f"espalier:{name}"))
        yield name, binary(es.model(f"espalier:{name}"), method, x), x


def binary(model: nn.Module, method: str, x: Tensor) -> Any:
    """Return a network as a method's training begins."""
    example = torch.cat([x, x]) if len(x) == 1 else x
    context: Any = None  # these methods begin without one
    made: Any = registry.made(method, {})
    if method == "binary_connect":
        made = registry.made("xnor_net", {"ends": True, "inputs": False})
    made.start(model, es.trace(model.eval(), example), context)
    return model


def row(name: str, model: nn.Module, x: Tensor, rounds: int) -> list[str]:
    """Return the medians of both forms, and their ratio within a round; their outputs are the same."""
    model = copy.deepcopy(model).eval()
    small = es.packed(model)
    with torch.no_grad():
        assert torch.equal(model(x), small(x))
        times = [[timed(model, x), timed(small, x)] for _ in range(rounds)]
    ratios = sorted(before / after for before, after in times)
    medians = [f"{1e3 * statistics.median(column):.3f}" for column in zip(*times, strict=True)]
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    return [name, str(len(x)), *medians, f"{statistics.median(ratios):.2f}", spread, f"{size(model) / size(small):.1f}"]


def timed(model: nn.Module, x: Tensor) -> float:
    """Return the processor's seconds for a pass; of as many as take 20 ms."""
    count, began = 0, time.process_time()
    while not count or time.process_time() - began < 0.02:
        model(x)
        count += 1
    return (time.process_time() - began) / count


def size(model: nn.Module) -> int:
    """Return the bytes of a network's tensors in memory."""
    return sum(one.numel() * one.element_size() for one in (*model.parameters(), *model.buffers()) if not one.is_meta)


def mnist(method: str, folder: Path, epochs: int) -> list[str]:
    """Train, read the test split, and encode."""
    task = es.load_task(f"mnist:{folder}", batch_size=200, augment=Augment())
    torch.manual_seed(0)
    model = es.model(f"espalier:{method}_mlp")
    precision = "bfloat16" if computes_in_bfloat16() else "float32"
    training = Training(epochs=epochs, lr=0.003, optimizer="adamw", weight_decay=0.0, precision=precision)
    steps = (Binarize(method=method, finetune=training), Save(), Measure(latency=False))  # type: ignore[arg-type]
    result = es.compress(model, task, Recipe(steps=steps, loss="squared_hinge", batch_size=200))
    accuracy = result.run.after.accuracy
    assert accuracy is not None
    with tempfile.TemporaryDirectory() as place:
        before, after = Path(place) / "model.safetensors", Path(place) / "model.esp"
        es.save(result.model, before)
        es.encode(result.model, after)
        sizes = os.stat(before).st_size, os.stat(after).st_size
    ratio = f"{sizes[0] / sizes[1]:.1f}"
    return [method, str(epochs), f"{100 - 100 * accuracy:.2f}", *(f"{one:,}" for one in sizes), ratio]


if __name__ == "__main__":
    main()
