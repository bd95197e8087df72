"""Budgets in milliseconds: tables measured once, written before they are used, and a plan that is measured whole."""

from __future__ import annotations

import json

from torch import nn

from ...core import FileError, Plan
from ...criteria import Scores
from ...graph import Graph, trace
from ...measure import Trial, Trials, latency_tables, meet
from ...selection.tables import Tables
from ..folders.checkpoints import Handle
from ..progress import bar
from ..steps import Prune
from ..work import Work
from .planning import Target, plan_of, scores

_TRIALS = "latency-trials.json"


def tables_of(step: Prune, name: str, work: Work) -> Tables | None:
    """Return the tables of the dense network, measured or looked up; None where no latency is limited."""
    if not step.limits_latency:
        return None

    def measure() -> str:
        dense = work.dense.open().model
        with bar("timing layers") as advance:
            tables = latency_tables(
                dense,
                trace(dense, work.example),
                backend=step.backend,
                threads=step.threads or 1,
                batch=step.latency_batch,
                on_progress=lambda *_: advance(""),
            )
        return tables.to_json()

    text = work.checkpoints.once(f"{name}/tables", lambda: work.engine.first(measure))
    work.journal.write("latency-tables.json", text)
    return Tables.from_json(text)


def met(step: Prune, key: str, work: Work, handle: Handle, target: Target) -> Plan:
    """Return the plan whose network, measured whole, meets the budget; what stopped it is noted where none does."""

    def measure() -> dict[str, str]:
        state = handle.open()
        graph = trace(state.model, work.example)
        given = scores(step, work, state, graph)
        return work.engine.first(lambda: close_in(state.model, graph, given))

    def close_in(model: nn.Module, graph: Graph, given: Scores) -> dict[str, str]:
        assert target.tables is not None
        known = _known(key, work)
        done = list(known)

        def keep(trial: Trial) -> None:
            done.append(trial)
            work.journal.write(_TRIALS, json.dumps({"stage": key, "trials": [one.to_data() for one in done]}))

        found = meet(
            model,
            graph,
            lambda tables: plan_of(step, graph, given, Target(target.budget, tables)),
            budget=target.budget,
            tables=target.tables,
            trials=Trials(known, keep),
            reference=work.dense.open().model,
        )
        return {"plan": found.plan.to_json(), "note": found.note}

    found = work.checkpoints.once(f"{key}/plan", measure)
    work.journal.note(found["note"])
    return Plan.from_json(found["plan"])


def _known(key: str, work: Work) -> list[Trial]:
    """Return the trials that an earlier process measured for this stage."""
    path = None if work.journal.folder is None else work.journal.folder / _TRIALS
    if path is None or not path.exists():
        return []
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return [Trial.from_data(one) for one in data["trials"]] if data["stage"] == key else []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path} is damaged: {error}") from error
