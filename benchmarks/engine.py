"""Speed of the engine beside Torch-Pruning 1.6.1: CPU seconds, one thread, the same process, interleaved.

    python -m benchmarks.engine [--only NAME ...] [--repeats 3] [--peer-seconds 120]

Ours: trace + scores + plan + cut(prove=False), for half of the MACs. Theirs: the pruner's construction + one step at
ratio 0.5. Copies of the model that each tool needs of the caller are made outside the clock. The median is reported;
what our proof adds, once, is a column of its own. Each model has a process of its own; Torch-Pruning is stopped after
``--peer-seconds``. The last row is a Llama-3-8B shape (32 layers) on the meta device, which has no weights.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import signal
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import espalier as es

from .peer import output_layers, prune_

MODELS = {
    # name: CPU seconds that Torch-Pruning took on the two-core reference machine, for orientation
    "torchvision:resnet50": 0.33,
    "torchvision:resnet152": 1.00,
    "torchvision:vit_b_16": 0.89,
    "torchvision:efficientnet_b7": 1.45,
    "torchvision:regnet_y_16gf": 1.13,
    "torchvision:convnext_large": 2.43,
    "torchvision:densenet201": 25.8,
    "torchvision:swin_t": None,
}
LLAMA = "llama-3-8b shape on meta"


def main() -> None:
    """Measure every model in a process of its own and print the table."""
    line = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    line.add_argument("--only", nargs="*", default=[], help="names of models")
    line.add_argument("--repeats", type=int, default=3)
    line.add_argument("--peer-seconds", type=int, default=120, help="limit of one Torch-Pruning run")
    line.add_argument("--worker", help=argparse.SUPPRESS)
    options = line.parse_args()
    if options.worker:
        measure(options.worker, options.repeats, options.peer_seconds)
        return
    print("| model | params (M) | trace | trace + plan + cut | torch-pruning | ratio | proof |\n" + "|---" * 7 + "|")
    for name in options.only or [*MODELS, LLAMA]:
        limits = ["--repeats", str(options.repeats), "--peer-seconds", str(options.peer_seconds)]
        command = [sys.executable, "-m", "benchmarks.engine", "--worker", name, *limits]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        print(row(name, done), flush=True)


def row(name: str, done: subprocess.CompletedProcess[str]) -> str:
    """Return one line of the table from a worker's last line."""
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        return f"| {name} | failed: {(done.stderr.strip().splitlines() or ['no output'])[-1][:200]} |||||"
    r = json.loads(lines[-1])
    ratio = "" if not isinstance(r["peer"], float) else f"{r['own'] / r['peer']:.2f}"
    cells = [name, f"{r['params'] / 1e6:.1f}", *(show(r[k]) for k in ("trace", "own", "peer")), ratio, show(r["proof"])]
    return "| " + " | ".join(cells) + " |"


def show(value: Any) -> str:
    """Return seconds, or the words that stand in for them."""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def measure(name: str, repeats: int, peer_seconds: int) -> None:
    """Time both tools on one model, by turns, and print the medians as JSON."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    model, example = llama() if name == LLAMA else vision(name)
    times: dict[str, list] = {"trace": [], "own": [], "peer": []}
    peer_works = name != LLAMA
    ignored = output_layers(model, example) if peer_works else []
    places = [name for name, module in model.named_modules() if any(module is layer for layer in ignored)]
    for _ in range(repeats):
        traced, whole = own(model, example)
        times["trace"].append(traced)
        times["own"].append(whole)
        if peer_works:
            result = peer(copy.deepcopy(model), example, places, peer_seconds)
            times["peer"].append(result)
            peer_works = isinstance(result, float)
    peer_result = times["peer"][-1] if not peer_works and times["peer"] else median(times["peer"])
    record = {
        "params": sum(p.numel() for p in model.parameters()),
        "trace": median(times["trace"]),
        "own": median(times["own"]),
        "peer": peer_result,
        "proof": proof(model, example),
    }
    print(json.dumps(record), flush=True)


def median(values: list[float]) -> float | str:
    """Return the median, or a dash for nothing."""
    return float(statistics.median(values)) if values else "-"


def own(model: nn.Module, example: Any) -> tuple[float, float]:
    """Return the CPU seconds of the trace, and of the trace, scores, plan and cut together."""
    gc.collect()
    start = time.process_time()
    graph = es.trace(model, example)
    traced = time.process_time() - start
    small = es.cut(model, graph, half(model, graph), prove=False)
    whole = time.process_time() - start
    del small
    return traced, whole


def half(model: nn.Module, graph: Any) -> Any:
    """Return a plan for half of the MACs; on meta there are no values to score, so units count alike."""
    if next(model.parameters()).is_meta:
        scores = es.criteria.random(model, graph, seed=0)
    else:
        scores = es.criteria.magnitude(model, graph)
    return es.plan(graph, scores, es.Budget(macs=0.5), strategy="uniform")


def proof(model: nn.Module, example: Any) -> float | str:
    """Return the CPU seconds that the proof adds to one cut."""
    graph = es.trace(model, example)
    plan = half(model, graph)
    seconds = []
    for prove in (False, True):
        start = time.process_time()
        es.cut(model, graph, plan, prove=prove)
        seconds.append(time.process_time() - start)
    return max(0.0, seconds[1] - seconds[0])


def peer(model: nn.Module, example: Any, places: list[str], seconds: int) -> float | str:
    """Return the CPU seconds of Torch-Pruning's construction and step, or why there are none. Changes the model."""
    ignored = [model.get_submodule(place) for place in places]

    def work() -> float:
        gc.collect()
        start = time.process_time()
        prune_(model, example, 0.5, ignored)
        return time.process_time() - start

    return limited(work, seconds)


def limited(work: Callable[[], float], seconds: int) -> float | str:
    """Run ``work``, for ``seconds`` at most."""

    def stop(_signal: int, _frame: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        return work()
    except TimeoutError:
        return f"no end in {seconds} s"
    except Exception as error:
        return f"{type(error).__name__}"
    finally:
        signal.alarm(0)


def vision(name: str) -> tuple[nn.Module, Any]:
    """Return a torchvision model and one image."""
    model = es.model(name).eval()
    return model, es.default_example(model, name)[:1]


def llama() -> tuple[nn.Module, Any]:
    """Return a model of Llama-3-8B's shape without weights, and what it reads.

    Positions and mask are given, because there are no values to derive them from.
    """
    small: Any = es.model("transformers:tiny-llama")
    config = type(small.config)(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        use_cache=False,
        attn_implementation="sdpa",
    )
    with torch.device("meta"):
        model = type(small)(config).eval()
        example = {
            "input_ids": torch.zeros(1, 16, dtype=torch.long),
            "position_ids": torch.arange(16)[None],
            "attention_mask": torch.zeros(1, 1, 16, 16),
        }
    return model, example


if __name__ == "__main__":
    main()
