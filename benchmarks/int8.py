"""int8 ResNet-50, and pruned-and-int8: what eight bits and half of the MACs make of its latency together.

    python -m benchmarks.int8 [--model torchvision:resnet50] [--runtimes onnxruntime openvino compile executorch]
                              [--rounds 15] [--threads 1] [--size 224]

In every runtime, four networks in turns: dense and pruned (half of the MACs, widths in multiples of 16), each in
float32 and in int8. Every figure is the median of ratios within a round, dense float32 of the same runtime over the
network, with its 95 % interval: on a machine that does other work milliseconds drift, ratios much less. Weights are
random, since nothing is downloaded: they change no time. Agreement is the signal to noise of int8 against the same
network in float32, on images of noise; how much accuracy int8 costs, trained networks tell (espalier export --int8).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator

import torch
from torch import Tensor, nn

import espalier as es
from espalier import backends, measure
from espalier.backends.agreement import compared
from espalier.backends.int8.runners import IN_INT8
from espalier.backends.protocol import BackendError, Prepared
from espalier.core.processor import instructions
from espalier.measure.machine import machine

RUNTIMES = tuple(one.float32 for one in IN_INT8.values())


def main() -> None:
    """Print a table a runtime."""
    line = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    line.add_argument("--model", default="torchvision:resnet50")
    line.add_argument("--runtimes", nargs="*", choices=RUNTIMES, default=RUNTIMES)
    line.add_argument("--rounds", type=int, default=15)
    line.add_argument("--threads", type=int, default=1)
    line.add_argument("--size", type=int, default=224)
    options = line.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{machine()}: {', '.join(instructions())}; {options.threads} thread(s), {options.rounds} rounds in turns")
    dense, small, share = networks(options.model, options.size)
    print(f"pruned: {share:.3f} of the MACs\n")
    print("| runtime | network | faster than dense float32 | ms | SQNR, dB | kernels |\n|---|---|---|---|---|---|")
    for runtime in options.runtimes:
        for row in rows(runtime, dense, small, options):
            print("| " + " | ".join(row) + " |", flush=True)


def networks(name: str, size: int) -> tuple[nn.Module, nn.Module, float]:
    """Return a network with random weights, its cut to half of the MACs, and the share of them that is left."""
    torch.manual_seed(0)
    model = es.model(name).eval()
    graph = es.trace(model, torch.zeros(2, 3, size, size))
    plan = es.plan(graph, es.criteria.magnitude(model, graph), es.Budget(macs=0.5), round_to=16)
    return model, es.cut(model, graph, plan, prove=False).eval(), graph.plan_cost(plan).macs / graph.cost().macs


def rows(runtime: str, dense: nn.Module, small: nn.Module, options: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """Prepare the four networks, time them in turns, and yield what each took."""
    torch.manual_seed(1)
    images = torch.randn(20, 3, options.size, options.size)
    example = images[:1]
    ready: dict[str, Prepared] = {}
    for bits in ("float32", "int8"):
        try:
            runner = backends.runner(f"{runtime}{'-int8' * (bits == 'int8')}")
        except BackendError as error:
            yield runtime, bits, "-", "-", "-", str(error)
            continue
        runner = IN_INT8[runner.name].calibrated([images[:16]]) if bits == "int8" else runner
        for what, model in (("dense", dense), ("pruned", small)):
            ready[f"{what} {bits}"] = runner.prepare(model, example, options.threads)
    if "dense float32" not in ready:
        return
    load = os.getloadavg()[0]
    turns = measure.in_turns(ready, options.rounds)
    for name, run in ready.items():
        low, middle, high = turns.ratio("dense float32", name)
        model = dense if name.startswith("dense") else small
        kernels = ", ".join(f"{count} x {kernel}" for kernel, count in list(run.kernels().items())[:2])
        yield (
            runtime,
            name,
            f"{middle:.2f} [{low:.2f}, {high:.2f}]",
            f"{turns.timing(name).median_ms:.1f} (load {load:.1f})",
            f"{agreement(model, run, images[16:]):.1f}",
            kernels,
        )


def agreement(model: nn.Module, run: Prepared, images: Tensor) -> float:
    """Return the signal to noise over images that were not calibrated on, in decibels."""
    with torch.no_grad():
        reference = model(images)
    return compared([reference], [torch.cat([run.on(one[None])[0] for one in images])]).sqnr_db


if __name__ == "__main__":
    main()
