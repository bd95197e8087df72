"""What the CIFAR-10 benchmark found: a row a run in SQLite, claims between processes, and tables."""

from __future__ import annotations

import fcntl
import sqlite3
import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from .demo import interval
from .tables import table

OURS, DENSE = "ours", "dense"
HEAD = ("arm", "fewer MACs", "parameters", "test (%)", "n", "ours - arm (points)", "95 % interval", "pairs")


@dataclass(frozen=True)
class Row:
    """One finished run.

    Attributes:
        network, ratio, arm, seed, epochs: which one.
        setup: how the arm was run; rows of another setup are another's.
        macs, dense_macs, params: counted by the trace, at batch 1.
        validation, test: accuracies after the last epoch, in [0, 1].
        seconds: of the clock.
        machine: what it ran on.
    """

    network: int
    ratio: float
    arm: str
    seed: int
    epochs: int
    setup: str
    macs: int
    dense_macs: int
    params: int
    validation: float
    test: float
    seconds: float
    machine: str

    @property
    def key(self) -> tuple:
        """What makes it this run and no other."""
        return (self.network, self.ratio, self.arm, self.seed, self.epochs, self.setup)


class Ledger:
    """Finished runs in a folder. Several processes may add to it; a row is there whole or not at all."""

    def __init__(self, folder: Path, row: type[Row] = Row) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.row = folder, row
        columns = ", ".join(field.name for field in fields(row))
        with self._opened() as ledger:
            ledger.execute(
                f"CREATE TABLE IF NOT EXISTS results ({columns}, "
                "PRIMARY KEY (network, ratio, arm, seed, epochs, setup))"
            )

    def rows(self) -> list[Row]:
        """Return all, the oldest first."""
        with self._opened() as ledger:
            return [self.row(*values) for values in ledger.execute("SELECT * FROM results ORDER BY rowid")]

    def add(self, row: Row) -> None:
        """Add one; the first of a key stands."""
        values = [getattr(row, field.name) for field in fields(self.row)]
        with self._opened() as ledger:
            ledger.execute(f"INSERT OR IGNORE INTO results VALUES ({', '.join('?' * len(values))})", values)

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Claim a piece of work while the body runs; yield whether it was free. A process that dies lets go."""
        with (self.folder / f"{name}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.folder / "results.sqlite", timeout=60)) as ledger, ledger:
            yield ledger


def report(rows: Iterable[Row]) -> str:
    """Return a table a network and ratio; a dense arm stands in all of its network's."""
    rows = list(rows)
    parts = []
    for network, ratio, epochs in sorted({(r.network, r.ratio, r.epochs) for r in rows if r.arm != DENSE}):
        own = [r for r in rows if (r.network, r.epochs) == (network, epochs) and (r.ratio == ratio or r.arm == DENSE)]
        parts.append(f"ResNet-{network}, {ratio:g} times fewer MACs, {epochs} epochs\n\n{compared(own)}")
    return "\n\n".join(parts) or "no results yet"


def compared(rows: Sequence[Row]) -> str:
    """Return the arms of one network and ratio beside each other; differences are of the same seeds."""
    by_arm: dict[str, dict[int, Row]] = {}
    for row in rows:
        by_arm.setdefault(row.arm, {})[row.seed] = row
    means = {arm: statistics.fmean(100 * r.test for r in own.values()) for arm, own in by_arm.items()}
    peers = [arm for arm in means if arm not in (OURS, DENSE)]
    best = max(peers, key=lambda arm: means[arm], default=None)
    order = sorted(by_arm, key=lambda arm: (arm != OURS, arm == DENSE, -means[arm]))
    return table([_line(arm, by_arm, best) for arm in order], HEAD)


def _line(arm: str, by_arm: dict[str, dict[int, Row]], best: str | None) -> list[str]:
    own = by_arm[arm]
    ratios = [r.dense_macs / r.macs for r in own.values()]
    mean, half = interval([100 * r.test for r in own.values()])
    pairs = differences(by_arm.get(OURS, {}), own) if arm != OURS else []
    return [
        f"{arm} (best peer)" if arm == best else arm,
        f"{statistics.fmean(ratios):.3f}",
        f"{statistics.fmean(r.params for r in own.values()):.0f}",
        f"{mean:.2f} ± {half:.2f}" if len(own) > 1 else f"{mean:.2f}",
        str(len(own)),
        *spread(pairs),
        str(len(pairs)) if pairs else "",
    ]


def differences(ours: dict[int, Row], other: dict[int, Row]) -> list[float]:
    """Return ours - other in points for every seed that both have."""
    return [100 * (ours[seed].test - other[seed].test) for seed in sorted(ours.keys() & other.keys())]


def spread(pairs: list[float]) -> tuple[str, str]:
    """Return the mean of differences and Student's interval of it, in words; nothing where there are too few."""
    if not pairs:
        return "", ""
    mean, half = interval(pairs)
    return f"{mean:+.2f}", f"[{mean - half:+.2f}, {mean + half:+.2f}]" if len(pairs) > 1 else ""
