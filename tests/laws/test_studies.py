"""Studies: every cell computed once, the same wherever and however often it is begun, and told of where it fails."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from espalier.core import FileError
from espalier.engines.executors import Pool
from espalier.recipes.folders.owner import Owner
from espalier.studies import Heuristics, jobs
from espalier.studies.files import checked
from espalier.studies.found import findings
from espalier.studies.run import Outcome, jobs_of, run
from espalier.studies.work import UNDER_WAY

from .studies import DRIVER, data

JOBS = 2 * (1 + 4 + 2 + 2 * 4)  # seeds x (dense, scores of 4 heuristics, 2 from scratch, 2 arms x 4 heuristics)


def results(outcome: Outcome) -> dict[str, Any]:
    return {key: known.outcome for key, known in outcome.results.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Heuristics, Outcome]:
    folder = tmp_path_factory.mktemp("study")
    study = checked(data(folder))
    assert isinstance(study, Heuristics)
    return folder, study, run(study, folder / "out")


def test_every_cell_is_there_with_its_controls(whole: Any) -> None:
    _, study, outcome = whole
    assert outcome.computed == len(outcome.jobs) == len(outcome.results) == JOBS and not outcome.failed
    assert study.heuristics == ("magnitude", "taylor", "random", "reversed:magnitude")
    arms = {(j.cell["arm"], j.cell["heuristic"], j.cell["seed"]) for j, _ in outcome.of("arm")}
    assert arms == {(arm, name, seed) for arm in ("baseline", "mended") for name in study.heuristics for seed in (0, 1)}
    for _, known in outcome.of("arm"):
        assert (
            known.outcome["macs_ratio"] <= 0.5 and 0 <= known.outcome["test"] <= 1 and len(known.outcome["curve"]) == 1
        )
    lengths = {(job.cell["arm"], len(known.outcome["curve"])) for job, known in outcome.of("scratch")}
    assert lengths == {("scratch-E", 2 + 1), ("scratch-B", 4 + 1)}
    assert {known.outcome["macs"] for _, known in outcome.of("scratch")} == {
        known.outcome["macs"] for job, known in outcome.of("arm") if job.cell["heuristic"] == "random"
    }


def test_the_dense_network_of_a_seed_is_trained_once_and_shared(whole: Any) -> None:
    folder, _, outcome = whole
    dense = {job.cell["seed"]: known.outcome["file"] for job, known in outcome.of("dense")}
    assert len(set(dense.values())) == 2 == len(list((folder / "out" / "dense").iterdir()))
    for job, _ in outcome.of("arm"):
        assert job.needs is not None and dense[job.cell["seed"]] == f"dense/{job.needs.key}.safetensors"
    assert not list((folder / "out" / UNDER_WAY).iterdir())


def test_nothing_is_computed_again(whole: Any) -> None:
    folder, study, outcome = whole
    again = run(study, folder / "out")
    assert again.computed == 0 and results(again) == results(outcome)


def test_more_of_a_study_computes_the_new_part_alone(whole: Any) -> None:
    folder, study, _ = whole
    more = run(checked(data(folder, criteria=["magnitude", "taylor", "lamp"])), folder / "out")
    assert more.computed == 2 * (1 + 2)  # scores and two arms of the new criterion, for each seed
    assert run(study, folder / "out").computed == 0


def test_what_the_ledger_has_lost_is_computed_anew_and_the_same(whole: Any) -> None:
    folder, study, outcome = whole
    chosen = next(job for job, _ in outcome.of("arm") if job.cell["heuristic"] == "taylor")
    with sqlite3.connect(folder / "out" / "ledger.sqlite") as ledger:
        ledger.execute("DELETE FROM results WHERE key = ?", (chosen.key,))
    (dense,) = (job for job, _ in outcome.of("dense") if job.cell["seed"] == 1)
    (folder / "out" / "dense" / f"{dense.key}.safetensors").unlink()
    again = run(study, folder / "out")
    assert again.computed == 2 and results(again) == results(outcome)


def test_other_code_computes_anew_unless_it_is_told_not_to(whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, study, outcome = whole
    monkeypatch.setattr("espalier.studies.run.code_version", lambda: "9.9+other")
    assert run(study, folder / "out", any_code=True).computed == 0
    monkeypatch.setattr("espalier.studies.run.do", lambda payload: {"file": "net.py"})
    assert run(study, folder / "out").computed == JOBS
    monkeypatch.undo()
    assert results(run(study, folder / "out")) == results(outcome)


@pytest.mark.slow
def test_a_pool_finds_the_same_bit_by_bit(whole: Any, tmp_path: Path) -> None:
    _, study, outcome = whole
    assert results(run(study, tmp_path, executor=Pool(2))) == results(outcome)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_finds_the_same_bit_by_bit(whole: Any, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from espalier.engines.executors import RayCore

    _, study, outcome = whole
    assert results(run(study, tmp_path, executor=RayCore(2))) == results(outcome)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_driver_that_was_killed_goes_on(whole: Any, tmp_path: Path) -> None:
    folder, study, outcome = whole
    (tmp_path / "driver.py").write_text(DRIVER)
    (tmp_path / "study.toml").write_text(tomli_w.dumps(data(folder)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    out = tmp_path / "out"
    command = [sys.executable, str(tmp_path / "driver.py"), str(tmp_path / "study.toml"), str(out)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as driver:
        deadline = time.time() + 120
        while counted(out) < 5:
            assert time.time() < deadline and driver.poll() is None
            time.sleep(0.02)
        driver.kill()
    known = counted(out)
    assert 5 <= known < JOBS
    again = run(study, out)
    assert again.computed == JOBS - known and results(again) == results(outcome)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_ends_driver_and_workers_and_the_same_command_goes_on(whole: Any, tmp_path: Path) -> None:
    folder, study, outcome = whole
    (tmp_path / "study.toml").write_text(tomli_w.dumps(data(folder)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "CI": "1"}
    command = [sys.executable, "-m", "espalier", "study", str(tmp_path / "study.toml"), "--out", str(tmp_path)]
    command += ["--executor", "pool", "--workers", "2"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=listen) as driver:
        deadline = time.time() + 120
        while counted(tmp_path / "small") < 3:
            assert time.time() < deadline and driver.poll() is None
            time.sleep(0.02)
        driver.send_signal(signal.SIGINT)
        _, error = driver.communicate(timeout=60)  # which ends when the workers, too, have closed its stderr
    assert driver.returncode == 130 and "the same command goes on" in error and "Traceback" not in error
    known = counted(tmp_path / "small")
    again = run(study, tmp_path / "small")
    assert 3 <= known < JOBS and again.computed == JOBS - known and results(again) == results(outcome)


def listen() -> None:
    """A shell's background jobs ignore SIGINT, and so would their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def counted(out: Path) -> int:
    """Return how many results the ledger has."""
    if not (out / "ledger.sqlite").exists():
        return 0
    try:
        with sqlite3.connect(out / "ledger.sqlite") as ledger:
            return ledger.execute("SELECT COUNT(*) FROM results").fetchone()[0]
    except sqlite3.OperationalError:  # not made yet
        return 0


def test_a_failure_is_told_of_and_tried_again(whole: Any, tmp_path: Path) -> None:
    folder, _, _ = whole
    subject = {**data(folder)["tasks"][0], "name": "broken", "batch_size": 128}
    (tmp_path / "net.py").write_text("def net(classes):\n    raise OSError('no such network')\n")
    small = {"criteria": ["magnitude"], "seeds": [0]}
    study = checked(data(folder, tasks=[{**subject, "model": f"{tmp_path}/net.py:net"}], **small))
    count = len(jobs_of(study))
    outcome = run(study, tmp_path / "out")
    assert len(outcome.failed) == count and not outcome.results
    assert "no such network" in "".join(findings(outcome).notes)
    (tmp_path / "net.py").write_text((folder / "net.py").read_text())
    mended = run(study, tmp_path / "out")
    assert not mended.failed and mended.computed == count  # the file is part of what names a result


def test_an_arm_that_trains_for_another_time_than_counted_is_no_result(whole: Any, tmp_path: Path) -> None:
    _, study, outcome = whole
    from espalier.studies.work import do

    arm = next(job for job, _ in outcome.of("arm"))
    payload = arm.payload(whole[0] / "out", f"dense/{arm.needs.key}.safetensors" if arm.needs else "")
    with pytest.raises(Exception, match="trained for 1 epochs, and the study counts 2"):
        do({**payload, "folder": str(tmp_path), "options": {"epochs": 2}})


def test_a_study_on_validation_never_keeps_the_test_split(tmp_path: Path) -> None:
    study = checked(data(tmp_path, split="validation", criteria=["magnitude"], seeds=[0]))
    outcome = run(study, tmp_path / "out")
    assert all(known.outcome["test"] is None for kind in ("arm", "dense", "scratch") for _, known in outcome.of(kind))
    (tmp_path / "elsewhere").mkdir()
    other = checked(data(tmp_path, criteria=["magnitude"], seeds=[0]))
    assert {job.key for job in jobs_of(study)}.isdisjoint(job.key for job in jobs_of(other) if job.kind != "scores")


def test_two_drivers_do_not_share_a_folder(whole: Any) -> None:
    folder, study, _ = whole
    holder = Owner(folder / "out")
    holder.begin()
    try:
        with pytest.raises(FileError, match="at work"):
            run(study, folder / "out")
    finally:
        holder.end()


def test_a_key_is_of_everything_that_a_result_depends_on(tmp_path: Path) -> None:
    def keys(**changes: Any) -> set[str]:
        return {job.key for job in jobs_of(checked(data(tmp_path, **changes)))}

    first = keys()
    assert keys() == first and len(first) == JOBS
    assert keys(name="other", threads=2) == first  # what no result depends on, or what executors are told
    subject = data(tmp_path)["tasks"][0]
    for change in ({"batch_size": 128}, {"train": {"epochs": 3}}, {"data": "mnist:elsewhere"}):
        assert keys(tasks=[{**subject, **change}]).isdisjoint(first)
    assert keys(seeds=[2, 3]).isdisjoint(first)
    (tmp_path / "net.py").write_text((tmp_path / "net.py").read_text() + "# another network\n")
    changed = {job.key for job in jobs_of(checked({**data(tmp_path)}))}
    assert changed == first  # `data` writes the network anew: the content counts, not the time
    (tmp_path / "net.py").write_text("# another network\n")
    assert {jobs.dense_job(checked(data_as_is(tmp_path)).tasks[0], 0, "test").key}.isdisjoint(first)


def data_as_is(folder: Path) -> dict[str, Any]:
    """Return the study's data and leave the file of its network as it is."""
    kept = (folder / "net.py").read_text()
    found = data(folder)
    (folder / "net.py").write_text(kept)
    return found
