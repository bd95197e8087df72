"""Coverage side by side with Torch-Pruning 1.6.1, out of the box, in the same run.

    python -m benchmarks.coverage [--only PATTERN ...] [--tool NAME] [--seconds 300] [--memory-gb 12] [--results FILE]

Each model and tool runs in a process of its own, with a limit on time and memory. Every result is appended to a file of
JSON lines at once; a second call does what is missing. The tables are printed at the end, and on ``--report`` alone.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from .models import names, uncovered
from .tables import report

TOOLS = ("espalier", "torch-pruning")
RESULTS = Path("benchmarks/results/coverage.jsonl")


def main() -> None:
    """Run what is missing, then print the tables."""
    options = parser().parse_args()
    wanted = [name for name in names() if not options.only or any(fnmatch.fnmatch(name, p) for p in options.only)]
    done = read(options.results)
    if not options.report:
        for module in uncovered():
            print(f"timm.models.{module} has no model in benchmarks/models.py", file=sys.stderr)
        missing = [(name, tool) for name in wanted for tool in options.tool or TOOLS if (name, tool) not in done]
        work(missing, options)
        done = read(options.results)
    print(report([record for (name, _), record in done.items() if name in wanted]))


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    line = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    line.add_argument("--only", nargs="*", default=[], help="names of models; * and ? match")
    line.add_argument("--tool", nargs="*", choices=TOOLS, default=[], help="both when left out")
    line.add_argument("--seconds", type=float, default=300.0, help="limit a model and tool (wall clock)")
    line.add_argument("--memory-gb", type=float, default=12.0, help="limit a model and tool")
    line.add_argument("--results", type=Path, default=RESULTS, help="file of JSON lines, continued")
    line.add_argument("--report", action="store_true", help="print the tables of what is there")
    return line


def read(path: Path) -> dict[tuple[str, str], dict]:
    """Return the recorded results; a later line of the same model and tool replaces an earlier one."""
    lines = path.read_text().splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("}")]
    return {(record["name"], record["tool"]): record for record in records}


def work(missing: Iterable[tuple[str, str]], options: argparse.Namespace) -> None:
    """Run every missing pair and append its record at once."""
    options.results.parent.mkdir(parents=True, exist_ok=True)
    missing = list(missing)
    for number, (name, tool) in enumerate(missing, 1):
        record = attempt(name, tool, options.seconds, options.memory_gb)
        with options.results.open("a") as file:
            file.write(json.dumps(record) + "\n")
        failed = record.get("failed")
        verdict = f"failed in {failed['during']}: {failed['reason']}" if failed else "ok"
        print(f"[{number}/{len(missing)}] {name} {tool}: {verdict}", file=sys.stderr, flush=True)


def attempt(name: str, tool: str, seconds: float, memory_gb: float) -> dict:
    """Run one worker and return its record: ``{"name", "tool", stage: {...}, "failed": {...}}``."""
    command = [sys.executable, "-m", "benchmarks.worker", tool, name, str(memory_gb)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, check=False)
        output, ending = done.stdout, ending_of(done.returncode, done.stderr)
    except subprocess.TimeoutExpired as late:
        output, ending = late.stdout or b"", f"no end within {seconds:.0f} s"
    record: dict = {"name": name, "tool": tool}
    for line in output.decode(errors="replace").splitlines():
        if line.startswith('{"stage"') and line.endswith("}"):
            fields = json.loads(line)
            record[fields.pop("stage")] = fields
    last = "budget" if tool == "espalier" else "forward"
    if last not in record and "failed" not in record:
        reached = [stage for stage in ("dense", "trace", "cut", "prune") if stage in record]
        record["failed"] = {"during": f"after {reached[-1]}" if reached else "dense", "reason": ending}
    return record


def ending_of(code: int, errors: bytes) -> str:
    """Say how a worker ended that printed no reason."""
    last = errors.decode(errors="replace").strip().splitlines()[-1:]
    return f"ended by signal {-code}" if code < 0 else " ".join(last)[:300] or f"exit code {code}"


if __name__ == "__main__":
    main()
