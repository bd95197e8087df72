"""The ready recipes and studies: each is read, and each runs, shortened, on the digits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import espalier as es
from espalier import studies
from espalier.recipes import Binarize, Cluster, Measure, Prune, Quantize, Recipe, Sparsify, Training, read
from espalier.recipes.steps import AnyStep
from espalier.studies.run import jobs_of, run
from espalier.tasks import Task, load_task

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.*"))
STUDIES = [path for path in EXAMPLES if 'kind = "' in path.read_text().partition("[[")[0]]
RECIPES = [path for path in EXAMPLES if path.suffix in (".toml", ".yaml") and path not in STUDIES]


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_task("digits", batch_size=256)


def short(step: AnyStep) -> AnyStep:
    """Return a step that takes moments, and asks of the digits' network what the example asks of its own."""
    if isinstance(step, Prune):
        finetune = step.finetune and step.finetune.model_copy(update={"epochs": 1})
        if step.method is not None:
            return step.model_copy(update={"finetune": finetune})
        changes = {"finetune": finetune, "rounds": min(step.rounds, 2), "max_rounds": 2, "score_batches": 1, "keep": ()}
        budget = {"latency_ratio": None, "macs": 0.5} if step.latency_ratio else {}
        return step.model_copy(update={**changes, **budget, "recover_batches": 2})
    if isinstance(step, Sparsify):
        finetune = step.finetune and step.finetune.model_copy(update={"epochs": 1})
        whole = {} if step.sparsity is not None else {"sparsity": 0.8, "layers": {}}  # layers of its own network
        return step.model_copy(update={"finetune": finetune, "rounds": min(step.rounds, 2), "every_steps": 1, **whole})
    if isinstance(step, Cluster):
        return step.model_copy(update={"finetune": step.finetune and step.finetune.model_copy(update={"epochs": 1})})
    if isinstance(step, Binarize):
        return step.model_copy(update={"finetune": step.finetune.model_copy(update={"epochs": 1}), "keep": ()})
    if isinstance(step, Quantize):
        finetune = step.finetune and step.finetune.model_copy(update={"epochs": 1})
        noise = {"min_sqnr_db": -50.0} if step.method == "post_training" else {}
        return step.model_copy(
            update={"finetune": finetune, "batches": 1, **noise, "size_ratio": step.size_ratio and 0.4}
        )
    if isinstance(step, Measure):
        return Measure(latency=False)
    return step.model_copy(update={"epochs": 1}) if isinstance(step, Training) else step


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_an_example_is_read_and_says_what_it_costs(path: Path) -> None:
    recipe = read(path)
    assert recipe.model and recipe.data
    text = path.read_text()
    assert "cost" in text.lower() and f"espalier run examples/{path.name}" in text


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=[] if p.name == "digits.toml" else pytest.mark.slow) for p in RECIPES],
    ids=lambda path: path.name,
)
def test_an_example_runs_shortened(path: Path, digits: Task) -> None:
    recipe = read(path)
    steps = (*(short(step) for step in recipe.steps if step.kind != "measure"), Measure(latency=False))
    torch.manual_seed(0)
    model = es.model("espalier:digits_cnn")
    result = es.compress(model, digits, Recipe(steps=steps, seed=1))
    assert result.run.status == "finished" and result.run.after.macs and result.run.before.macs
    assert result.run.after.macs <= result.run.before.macs
    trained = [step for step in steps if isinstance(step, Training)]
    assert len(result.run.history) >= len(trained)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_a_study_is_read_and_says_what_it_costs(path: Path) -> None:
    study = studies.read(path)
    assert study.name == path.stem and len(study.seeds) >= 2
    text = path.read_text()
    assert f"{len(jobs_of(study))} jobs" in text and f"espalier study examples/{path.name}" in text
    if isinstance(study, studies.Heuristics) and path.name != "heuristics-digits.toml":
        assert len(study.heuristics) >= 16 and len(study.arms) == 2


@pytest.mark.slow
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_a_study_runs_shortened(path: Path, tmp_path: Path) -> None:
    study = studies.read(path)
    subject = study.tasks[0].model_copy(update={"model": "espalier:digits_cnn", "data": "digits", "batch_size": 256})
    subject = subject.model_copy(update={"train": subject.train.model_copy(update={"epochs": 1})})
    if not isinstance(study, studies.Heuristics):
        quick = {"blocks": {}, "inits": ("parent",), "training": Training(epochs=1), "criteria": ("magnitude",)}
        quick["rounds"] = 1
        known = {key: value for key, value in quick.items() if key in type(study).model_fields}
        assert not run(study.model_copy(update={"tasks": (subject,), "seeds": (0,), **known}), tmp_path).failed
        return
    arms = tuple(arm.model_copy(update={"steps": tuple(short(step) for step in arm.steps)}) for arm in study.arms)
    changes = {"tasks": (subject,), "arms": arms, "seeds": (0,), "criteria": study.criteria[-1:]}
    outcome = run(study.model_copy(update=changes), tmp_path)
    assert not outcome.failed and outcome.computed == 1 + (2 + len(study.reversed)) * (1 + len(arms)) + 2
