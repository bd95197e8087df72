"""Who cuts the pattern catalogue right: Espalier and Torch-Pruning 1.6.1, half of everything, in the same run.

    python -m benchmarks.patterns [--only NAME ...]

Each network is cut on its own, and the result is compared in float64 with the dense network whose removed positions
hold (vanishing) zeros, norm statistics counting kept positions only. Which positions a tool removed is read off the
surviving values, which are unique random numbers: neither tool's account of itself is used.

    right     runs and equals the dense network with zeros; or there was nothing to prune, and nothing was
    wrong     runs, but computes something else or has other output shapes, without any error
    unchecked runs; where the network takes statistics of its own, zeros are not the same function
    idle      nothing was pruned though there was something to prune
    refused   an error that says what forbids the cut
    error     any other exception, at pruning or at the next forward pass, or no end within the time limit
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import signal
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from tests.patterns import BY_NAME, Pattern
from tests.patterns.masking import VANISHING, KeptStatistics, build, close, counted_plan, outputs
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import espalier as es

from .peer import prune_, run

SECONDS = 30
OUTCOMES = ("right", "unchecked", "refused", "idle", "error", "wrong")


def peer_cut(pattern: Pattern) -> nn.Module:
    """Prune half with Torch-Pruning."""
    return prune_(*build(pattern))


def own_cut(pattern: Pattern) -> nn.Module:
    """Prune half with Espalier, proof included."""
    model, example = build(pattern)
    graph = es.trace(model, example)
    return es.cut(model, graph, es.Plan(counted_plan(graph, graph.groups, 0), graph.fingerprint), prove=True)


def removed(dense: Tensor, small: Tensor) -> list[Tensor] | None:
    """Return the positions that each dimension lost, found by the surviving values; None when a value is new."""
    order = dense.flatten().argsort()
    place = torch.searchsorted(dense.flatten()[order], small.flatten()).clamp(max=dense.numel() - 1)
    flat = order[place]
    if not torch.equal(dense.flatten()[flat], small.flatten()):
        return None
    lost = []
    for dim, index in enumerate(torch.unravel_index(flat, dense.shape)):
        stays = torch.zeros(dense.shape[dim], dtype=torch.bool)
        stays[index] = True
        lost.append((~stays).nonzero().flatten())
    return lost


def zeroed(pattern: Pattern, small: nn.Module) -> nn.Module | None:
    """Return the dense network with zeros where ``small`` lost something; None when ``small`` has values of its own."""
    model, _ = build(pattern)
    kept = {**dict(small.named_parameters()), **dict(small.named_buffers())}
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            other = kept.get(name)
            if other is None or not tensor.is_floating_point() or other.shape == tensor.shape:
                continue
            lost = removed(tensor, other) if other.dim() == tensor.dim() else None
            if lost is None:
                return None
            for dim, positions in enumerate(lost):
                tensor.index_fill_(dim, positions, VANISHING)
    return model


def judge(pattern: Pattern, cut: Callable[[Pattern], nn.Module]) -> tuple[str, str]:
    """Return an outcome and its detail for one tool on one pattern."""
    dense, example = build(pattern)
    try:
        with time_limit(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            small = cut(pattern).eval()
            result = outputs(small, example)
            sum(leaf.sum() for leaf in tree_leaves(run(copied(small).train(), example))).backward()
    except es.EspalierError as error:
        return "refused", str(error).split("\n")[0]
    except Exception as error:
        return "error", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return compared(pattern, dense, small, (example, result))


def copied(model: nn.Module) -> nn.Module:
    """Return a copy for the training pass, which moves running statistics; a few networks have none and lend theirs."""
    try:
        return copy.deepcopy(model)
    except RuntimeError:
        return model


def compared(pattern: Pattern, dense: nn.Module, small: nn.Module, ran: tuple[Any, list[Tensor]]) -> tuple[str, str]:
    """Judge a network that runs."""
    example, result = ran
    expected = [leaf.shape for leaf in outputs(dense, example)]
    if sum(p.numel() for p in small.parameters()) == sum(p.numel() for p in dense.parameters()):
        return ("idle" if pattern.expect else "right"), "nothing was removed"
    if [leaf.shape for leaf in result] != expected:
        return "wrong", "the network's own outputs were cut"
    masked = zeroed(pattern, small)
    if masked is None or pattern.unmaskable:
        return "unchecked", "weights were rewritten" if masked is None else pattern.unmaskable
    with KeptStatistics():
        equal = close(result, outputs(masked, example))
    if equal:
        return "right", ""
    return ("wrong", "computes another function") if pattern.zero_ok else ("unchecked", "takes statistics of its own")


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the running code after ``seconds``."""

    def stop(_signal: int, _frame: Any) -> None:
        raise TimeoutError(f"no end within {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> None:
    """Print one row a pattern and the counts."""
    parser = argparse.ArgumentParser(description="Espalier and Torch-Pruning on the pattern catalogue.")
    parser.add_argument("--only", nargs="*", default=[], help="names of patterns; all when left out")
    parser.add_argument("--tool", choices=("both", "espalier", "torch-pruning"), default="both")
    options = parser.parse_args()
    tools = {"espalier": own_cut, "torch-pruning": peer_cut}
    tools = {name: cut for name, cut in tools.items() if options.tool in ("both", name)}
    counts = {name: collections.Counter() for name in tools}
    print("| pattern | " + " | ".join(tools) + " |\n|---|" + "---|" * len(tools))
    for pattern in [BY_NAME[name] for name in options.only] or BY_NAME.values():
        cells = []
        for name, cut in tools.items():
            outcome, detail = judge(pattern, cut)
            counts[name][outcome] += 1
            cells.append(f"{outcome}: {detail}" if detail else outcome)
        print(f"| {pattern.name} | " + " | ".join(cell.replace("|", "/")[:160] for cell in cells) + " |", flush=True)
    print("\n| | " + " | ".join(OUTCOMES) + " |\n|---|" + "---|" * len(OUTCOMES))
    for name, count in counts.items():
        print(f"| {name} | " + " | ".join(str(count[outcome]) for outcome in OUTCOMES) + " |")


if __name__ == "__main__":
    main()
