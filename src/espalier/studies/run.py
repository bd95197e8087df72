"""The driver: which jobs are left, who does them, and what became of them.

study ──▶ jobs ──less what the ledger knows──▶ executor ──one by one──▶ ledger ──▶ findings

Whatever moment the driver or a worker is killed, all that is in the ledger is whole, and the next call goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core import FileError
from ..core.atomic import write_text
from ..engines.executors import Call, Executor, InProcess
from ..recipes.folders.folder import cannot_write
from ..recipes.folders.owner import Owner
from ..recipes.progress import bar
from . import files, ledger
from .heuristics import jobs_of as heuristics_jobs
from .jobs import Job, code_version
from .ledger import Known
from .lottery.jobs import jobs_of as lottery_jobs
from .sensitivity import jobs_of as sensitivity_jobs
from .study import Study
from .triage.jobs import jobs_of as triage_jobs
from .work import do

STUDY = "study.toml"
JOBS: dict[str, Callable[[Any], Iterable[Job]]] = {
    "heuristics": heuristics_jobs,
    "triage": triage_jobs,
    "sensitivity": sensitivity_jobs,
    "lottery": lottery_jobs,
}


@dataclass(frozen=True)
class Outcome:
    """A study that was gone through.

    Attributes:
        study: what was asked.
        jobs: all of it.
        results: by key, of what was done.
        failed: why, by key.
        computed: how many jobs this call did; the ledger knew the others.
    """

    study: Study
    jobs: tuple[Job, ...]
    results: dict[str, Known]
    failed: dict[str, str]
    computed: int

    def of(self, kind: str) -> Iterator[tuple[Job, Known]]:
        """Yield the jobs of a kind that were done, with their results."""
        for job in self.jobs:
            if job.kind == kind and job.key in self.results:
                yield job, self.results[job.key]


def jobs_of(study: Study) -> tuple[Job, ...]:
    """Return all jobs of a study, those that others need first."""
    made = JOBS[study.kind](study)
    return tuple({job.key: job for job in made}.values())


def run(study: Study, folder: Path, *, executor: Executor | None = None, any_code: bool = False) -> Outcome:
    """Do what of a study is not done yet.

    Args:
        study: what to do.
        folder: of the study; it may hold results already, of another version of the study too.
        executor: where jobs run; this process when None.
        any_code: take results that another version of the code has written; the findings name the versions.

    Raises:
        FileError: the folder cannot be written, or another process is at work in it.
        EngineError: the executor cannot run here.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / STUDY, files.to_toml(study))
    except OSError as error:
        raise FileError(cannot_write(folder / STUDY, error)) from error
    owner = Owner(folder)
    owner.begin()
    try:
        with ledger.opened(folder) as book:
            return _run(study, folder, executor or InProcess(study.threads), (book, any_code))
    finally:
        owner.end()


def _run(study: Study, folder: Path, executor: Executor, book: tuple[ledger.Ledger, bool]) -> Outcome:
    """Do what the ledger does not know."""
    code = code_version()
    jobs = jobs_of(study)
    ours = {job.key: job for job in jobs}
    known = book[0].known("" if book[1] else code)
    results = {key: one for key, one in known.items() if key in ours and not one.error and _there(one, folder)}
    left = [job for job in jobs if job.key not in results]
    failed: dict[str, str] = {}
    ended = executor.run(do, _calls(left, results, folder))
    with bar(study.name, len(jobs), len(results)) as advance, closing(ended):
        for done in ended:
            job = ours[done.key]
            book[0].enter(job, done, code)
            if done.error:
                failed[done.key] = done.error
            else:
                results[done.key] = Known(done.value, "", done.seconds, code)
            advance(f"{job}{': failed' if done.error else ''}")
    return Outcome(study, jobs, results, failed, len(left))


def _calls(left: Sequence[Job], results: dict[str, Known], folder: Path) -> list[Call]:
    """Return jobs as calls: each waits for the network that it starts from, unless that is there."""
    calls = []
    for job in left:
        start, after = "", ()
        if job.needs is not None and job.needs.key in results:
            start = (results[job.needs.key].outcome or {})["file"]
        elif job.needs is not None:
            start, after = f"dense/{job.needs.key}.safetensors", (job.needs.key,)
        calls.append(Call(job.key, job.payload(folder, start), after))
    return calls


def _there(one: Known, folder: Path) -> bool:
    """Say whether the file that a result speaks of is still there."""
    name = (one.outcome or {}).get("file")
    return name is None or (folder / name).is_file()
