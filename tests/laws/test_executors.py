"""Executors: every result right, in any order, whatever dies; only the call whose worker died is done again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from espalier.core import EspalierError
from espalier.engines.executors import Call, Done, Executor, InProcess, Pool, RayCore, named

from .executor_jobs import traces, work


def calls(folder: Path, count: int = 6, **changes: dict[str, Any]) -> list[Call]:
    """Return calls 0 to ``count``; ``changes`` are to the payloads of some, ``n3={"die": 1}``."""
    base = {"folder": str(folder)}
    return [Call(f"n{i}", {**base, "number": i, **changes.get(f"n{i}", {})}) for i in range(count)]


def found(executor: Executor, given: list[Call]) -> dict[str, Done]:
    done = list(executor.run(work, given))
    assert len(done) == len({one.key for one in done})
    return {one.key: one for one in done}


def ray_of_two() -> RayCore:
    pytest.importorskip("ray")
    return RayCore(2)


ON_ALL = pytest.mark.parametrize(
    "make", [InProcess, lambda: Pool(2), pytest.param(ray_of_two, marks=pytest.mark.slow)], ids=["here", "pool", "ray"]
)
quiet = pytest.mark.filterwarnings("ignore")  # Ray's own


@quiet
@ON_ALL
def test_every_call_is_done_once_and_a_failure_is_its_own(make: Any, tmp_path: Path) -> None:
    done = found(make(), calls(tmp_path, n2={"fail": True}))
    assert {key: one.value["square"] for key, one in done.items() if not one.error} == {
        f"n{i}": i * i for i in (0, 1, 3, 4, 5)
    }
    assert done["n2"].error == "ValueError: no such number" and done["n2"].value is None
    assert traces(tmp_path) == dict.fromkeys(range(6), 1)


@quiet
@pytest.mark.parametrize(
    "make", [lambda: Pool(2), pytest.param(ray_of_two, marks=pytest.mark.slow)], ids=["pool", "ray"]
)
def test_a_worker_killed_in_mid_task_costs_that_task_alone(make: Any, tmp_path: Path) -> None:
    done = found(make(), calls(tmp_path, 8, n3={"die": 1}))
    assert {key: one.value["square"] for key, one in done.items()} == {f"n{i}": i * i for i in range(8)}
    assert not any(one.error for one in done.values())
    assert traces(tmp_path) == {**dict.fromkeys(range(8), 1), 3: 2}
    workers = {one.value["pid"] for one in done.values()}
    assert os.getpid() not in workers and len(workers) >= 2


@quiet
@pytest.mark.parametrize(
    "make", [lambda: Pool(1), pytest.param(ray_of_two, marks=pytest.mark.slow)], ids=["pool", "ray"]
)
def test_a_call_that_kills_every_worker_fails_and_the_others_go_on(make: Any, tmp_path: Path) -> None:
    done = found(make(), calls(tmp_path, 3, n0={"die": 99}))
    assert "died" in done["n0"].error and traces(tmp_path) == {0: 3, 1: 1, 2: 1}
    assert [done[key].value["square"] for key in ("n1", "n2")] == [1, 4]


@pytest.mark.parametrize("executor", [InProcess(), Pool(2)], ids=["here", "pool"])
def test_calls_wait_for_what_they_come_after(executor: Executor, tmp_path: Path) -> None:
    first, second, third, other = calls(tmp_path, 4, n3={"fail": True})
    chain = [Call(second.key, second.payload, ("n2",)), Call(first.key, first.payload, ("n1",)), third, other]
    behind = Call("n4", {"folder": str(tmp_path), "number": 4}, ("n3",))
    last = Call("n5", {"folder": str(tmp_path), "number": 5}, ("n4",))
    done = list(executor.run(work, [last, behind, *chain]))
    order = [one.key for one in done]
    assert order.index("n2") < order.index("n1") < order.index("n0") and len(order) == 6
    failed = {one.key: one.error for one in done if one.error}
    assert set(failed) == {"n3", "n4", "n5"} and failed["n4"] == "not begun, as n3 failed: ValueError: no such number"
    assert set(traces(tmp_path)) == {0, 1, 2, 3}


def threads(payload: int) -> int:
    return torch.get_num_threads()


def test_threads_are_the_calls_own_and_the_callers_come_back() -> None:
    before = torch.get_num_threads()
    done = next(InProcess(threads=before + 1).run(threads, [Call("a", 0)]))
    assert done.value == before + 1 and torch.get_num_threads() == before
    assert next(Pool(1, threads=2).run(threads, [Call("a", 0)])).value == 2


def test_a_closed_iterator_ends_its_workers(tmp_path: Path) -> None:
    running = Pool(2).run(
        pids_and_sleep, [Call(str(i), {"folder": str(tmp_path), "sleep": 60 * (i > 0)}) for i in range(3)]
    )
    next(running)
    until(lambda: len(list(tmp_path.glob("*.begun"))) == 2)
    running.close()
    assert not any(alive(int(path.stem)) for path in tmp_path.glob("*.pid"))


DRIVER = """
import sys
from espalier.engines.executors import Call, Pool
from tests.laws.test_executors import pids_and_sleep

if __name__ == "__main__":
    list(Pool(2).run(pids_and_sleep, [Call(str(i), {"folder": sys.argv[1], "sleep": 60}) for i in range(2)]))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_workers_do_not_outlive_a_driver_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=environment) as driver:
        until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
        driver.kill()
    workers = [int(path.stem) for path in tmp_path.glob("*.pid")]
    assert len(workers) == 2
    until(lambda: not any(map(alive, workers)))


def until(happens: Callable[[], bool]) -> None:
    """Wait for something that other processes do; far longer than it takes."""
    deadline = time.time() + 60
    while not happens():
        assert time.time() < deadline, "it did not happen"
        time.sleep(0.05)


def pids_and_sleep(payload: dict[str, Any]) -> None:
    Path(payload["folder"], f"{os.getpid()}.pid").touch()
    Path(payload["folder"], f"{os.getpid()}{time.monotonic_ns()}.begun").touch()
    time.sleep(payload["sleep"])


def alive(pid: int) -> bool:
    """Say whether a process computes; one that has ended and waits for its parent's word does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_names_and_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    assert named("pool", workers=3, threads=2) == Pool(3, 2) and named("inprocess", threads=2) == InProcess(2)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EspalierError, match=r"espalier\[cluster\]"):
        list(named("ray").run(work, []))
