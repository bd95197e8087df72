"""Five seeds of ``espalier demo``: test accuracy before and after, with the paired difference.

    python -m benchmarks.demo [--seeds 5] [--macs 0.3]

Test accuracy is read once a seed, at the end of the run. The interval is Student's, 95 %, of the paired differences.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from scipy import stats

from espalier.cli.dispatch import run_command


def main() -> None:
    """Run the seeds and print one row each and the summary."""
    line = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    line.add_argument("--seeds", type=int, default=5)
    line.add_argument("--macs", type=float, default=0.3)
    options = line.parse_args()
    print("| seed | dense accuracy (%) | cut accuracy (%) | difference | MACs ratio | seconds |\n" + "|---" * 6 + "|")
    differences = []
    for seed in range(options.seeds):
        start = time.perf_counter()
        before, after, ratio = one(seed, options.macs)
        differences.append(100 * (after - before))
        cells = f"{100 * before:.2f} | {100 * after:.2f} | {differences[-1]:+.2f} | {ratio:.3f}"
        print(f"| {seed} | {cells} | {time.perf_counter() - start:.0f} |", flush=True)
    mean, half = interval(differences)
    print(f"\nMean difference {mean:+.2f} points, n = {len(differences)}; ", end="")
    print(f"95 % interval [{mean - half:+.2f}, {mean + half:+.2f}].")


def one(seed: int, macs: float) -> tuple[float, float, float]:
    """Run the demo and return the test accuracies before and after, in [0, 1], and the ratio of MACs."""
    with tempfile.TemporaryDirectory() as folder:
        code = run_command("demo", ["--seed", str(seed), "--macs", str(macs), "--out", folder])
        if code:
            raise SystemExit(code)
        (path,) = Path(folder).rglob("run.json")
        run = json.loads(path.read_text())
    before, after = run["before"], run["after"]
    return before["accuracy"], after["accuracy"], after["macs"] / before["macs"]


def interval(values: list[float]) -> tuple[float, float]:
    """Return the mean and half of Student's 95 % interval."""
    if len(values) < 2:
        return statistics.fmean(values), float("nan")
    error = statistics.stdev(values) / len(values) ** 0.5
    return statistics.fmean(values), float(stats.t.ppf(0.975, len(values) - 1)) * error


if __name__ == "__main__":
    main()
