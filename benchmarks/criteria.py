"""What each criterion costs, in forward and backward passes over the same batches; beside Torch-Pruning's two.

    python -m benchmarks.criteria [--model torchvision:resnet18] [--size 64] [--batch 8] [--batches 8] [--rounds 5]
                                  [--only NAME ...]

Each round times the plain passes before every criterion, in one thread's processor time; the table gives the median of
ratios and their range. A criterion's time is that of one call, with whatever it needs to know
of the model before and after its passes. Criteria without data are in the same unit. Weights and images are random.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from espalier import criteria, model, trace

from .tables import table

Batches = list[tuple[Tensor, Tensor]]
CLASSES = 1000
SLOW = 20.0  # passes: timed in the first round only


def main() -> None:
    """Time everything and print a table."""
    line = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    line.add_argument("--model", default="torchvision:resnet18")
    line.add_argument("--size", type=int, default=64)
    line.add_argument("--batch", type=int, default=8)
    line.add_argument("--batches", type=int, default=8)
    line.add_argument("--rounds", type=int, default=5)
    line.add_argument("--only", nargs="*", default=[])
    options = line.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = model(options.model).eval()
    data = [
        (torch.randn(options.batch, 3, options.size, options.size), torch.randint(CLASSES, (options.batch,)))
        for _ in range(options.batches)
    ]
    arms = {**own(net, data), **peers(net, data)}
    if options.only:
        arms = {name: arms[name] for name in options.only}
    passes(net, data)
    found: dict[str, list[float]] = {name: [] for name in arms}
    seconds: list[float] = []
    for number in range(options.rounds):
        for name, arm in arms.items():
            if number == 0 or found[name][0] < SLOW:
                seconds.append(timed(lambda: passes(net, data)))
                found[name].append(timed(arm) / seconds[-1])
                print(f"{name}: {found[name][-1]:.2f}", file=sys.stderr, flush=True)
    print(
        f"\n{options.model}, {options.batches} batches of {options.batch} at {options.size} x {options.size}, one "
        f"thread; forward and backward: {statistics.median(seconds):.2f} s\n"
    )
    rows = [
        [name, f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f} to {max(ratios):.2f}", str(len(ratios))]
        for name, ratios in sorted(found.items(), key=lambda pair: statistics.median(pair[1]))
    ]
    print(table(rows, ["criterion", "forward-backward passes", "range", "rounds"]))


def timed(action: Callable[[], object]) -> float:
    begin = time.process_time()  # of one thread: other work on the machine does not count
    action()
    return time.process_time() - begin


def passes(net: nn.Module, data: Batches) -> None:
    """Run forward and backward, as training does, in eval mode."""
    for x, y in data:
        net.zero_grad()
        functional.cross_entropy(net(x), y).backward()
    net.zero_grad()


def own(net: nn.Module, data: Batches) -> dict[str, Callable[[], object]]:
    """Return a call of every criterion."""
    graph = trace(net, data[0][0][:2])

    def call(name: str) -> Callable[[], object]:
        given = {"batches": data, "loss": functional.cross_entropy} if name in criteria.DATA_DRIVEN else {}
        return lambda: criteria.named(name)(net, graph, **given)

    return {name: call(name) for name in criteria.CRITERIA}


def peers(net: nn.Module, data: Batches) -> dict[str, Callable[[], object]]:
    """Return Torch-Pruning's gradient criteria as its examples use them, scoring every group."""
    try:
        import torch_pruning as tp
    except ImportError:
        return {}
    graph = tp.DependencyGraph().build_dependency(net, example_inputs=data[0][0][:1])
    groups = list(graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear]))

    def taylor() -> list:
        importance = tp.importance.TaylorImportance()
        net.zero_grad()
        for x, y in data:
            functional.cross_entropy(net(x), y).backward()
        scores = [importance(group) for group in groups]
        net.zero_grad()
        return scores

    def hessian() -> list:
        importance = tp.importance.HessianImportance()
        importance.zero_grad()
        for x, y in data:
            for one in functional.cross_entropy(net(x), y, reduction="none"):
                net.zero_grad()
                one.backward(retain_graph=True)
                importance.accumulate_grad(net)
        scores = [importance(group) for group in groups]
        net.zero_grad()
        return scores

    return {"torch-pruning: Taylor": taylor, "torch-pruning: Hessian": hessian}


if __name__ == "__main__":
    main()
