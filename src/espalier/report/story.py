"""Which charts a run has: the path from dense to small, and the curves of training."""

from __future__ import annotations

from collections.abc import Iterator

from ..core.run import Point, Run
from .charts import Chart, Dot, Role, Series, curve
from .numbers import show_count

_NAMES: dict[Role, str] = {  # from back to front: where training changed little, the cut is seen around it
    "dense": "the network it began with",
    "trained": "trained after the cut",
    "cut": "just cut, not trained since",
    "undone": "tried and undone: it lost too much",
}


def path_chart(run: Run) -> Chart | None:
    """Return metric against MACs of the networks on the way, or None where there are not two."""
    if len(run.path) < 2:
        return None
    whole = next((p.macs for p in run.path if p.kind == "dense"), None) or run.before.macs
    divide = (whole / 100) if whole else 1e6
    dots = [(point, Dot(point.macs / divide, 100 * point.score, _title(run, point, whole))) for point in run.path]
    way = Series("in this order", "line", tuple(dot for point, dot in dots if point.accepted))
    shown = [Series(name, role, tuple(d for p, d in dots if _role(p) == role)) for role, name in _NAMES.items()]
    return Chart(
        key="path",
        title=f"Validation {run.metric}, %, against cost",
        x_label="MACs, % of the network it began with" if whole else "MACs, millions",
        y_label=f"validation {run.metric}, %",
        series=(way, *(series for series in shown if series.dots)),
    )


def training_charts(run: Run) -> list[Chart]:
    """Return the curves that have at least two points: metric, loss and learning rate, by epoch."""
    stages = [epoch.stage for epoch in run.history]
    scores = [None if e.accuracy is None else 100 * e.accuracy for e in run.history]
    curves = (
        curve("score", f"Validation {run.metric}, %", " %", scores, stages),
        curve("loss", "Training loss", "", [epoch.loss for epoch in run.history], stages),
        curve("lr", "Learning rate", "", [epoch.lr for epoch in run.history], stages),
    )
    return [found for found in curves if found is not None]


def stages(run: Run) -> Iterator[tuple[str, int, int, float]]:
    """Yield (stage, first epoch, last epoch, seconds) of the stretches of training."""
    start = 0
    for i, epoch in enumerate(run.history):
        if i + 1 == len(run.history) or run.history[i + 1].stage != epoch.stage:
            yield epoch.stage, start + 1, i + 1, sum(e.seconds for e in run.history[start : i + 1])
            start = i + 1


def _role(point: Point) -> Role:
    return point.kind if point.accepted else "undone"


def _title(run: Run, point: Point, whole: int | None) -> str:
    share = f" ({100 * point.macs / whole:.1f} %)" if whole else ""
    undone = "" if point.accepted else ", undone"
    what = {"dense": "", "cut": ": just cut", "trained": ": trained"}[point.kind]
    return f"{point.stage}{what}{undone}. {run.metric} {100 * point.score:.2f} %, {show_count(point.macs)} MACs{share}"
