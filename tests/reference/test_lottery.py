"""Lottery tickets: survivors are reset to where training began, controls differ in one thing each, and all is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import espalier as es
from espalier.core import EspalierError
from espalier.core.findings import Lines, Table
from espalier.graph.mask_files import read_masks
from espalier.report import render_study
from espalier.studies.files import StudyError, checked
from espalier.studies.found import findings
from espalier.studies.lottery import jobs
from espalier.studies.lottery.found import reach
from espalier.studies.lottery.study import ARMS, FINETUNED, FRESH, RANDOM_MASK, TICKET
from espalier.studies.run import Outcome, jobs_of, run
from espalier.tasks import load_task

from ..laws import studies as small

Weights = dict[str, Tensor]
Begun = dict[tuple[str, int], Weights]  # what each arm of each round was trained from


def data(folder: Path, **changes: Any) -> dict[str, Any]:
    (subject,) = small.data(folder)["tasks"]
    subject["train"] = {"epochs": 3, "lr": 0.3}
    given = {"kind": "lottery", "name": "tickets", "tasks": [subject], "seeds": [0], "rounds": 2, "sparsity": 0.75}
    return {**given, **changes}


def weights(model: nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def gone_through(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path, Begun]:
    """A study with two rounds, and what its runs began with."""
    folder = tmp_path_factory.mktemp("lottery")
    begun: Begun = {}
    taught = jobs._taught

    def spy(network: nn.Module, task: Any, seed: int, options: Any) -> list[float]:
        begun[options["arm"], options["round"]] = weights(network)
        return taught(network, task, seed, options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "_taught", spy)
        outcome = run(checked(data(folder)), folder)
    assert not outcome.failed and outcome.computed == len(outcome.jobs) == 1 + 2 * len(ARMS)
    return outcome, folder, begun


def file_of(gone_through: tuple[Outcome, Path, Begun], number: int) -> Path:
    """Return the file of what round ``number`` left; round 0 is the dense network."""
    outcome, folder, _ = gone_through
    (name,) = (
        known.outcome["file"]
        for job, known in outcome.of("lottery" if number else "dense")
        if known.outcome and job.cell.get("arm", TICKET) == TICKET and job.cell.get("round", 0) == number
    )
    return folder / name


def beginning(folder: Path, seed: int = 0) -> Weights:
    """Return theta_0, made by hand: what the network is before any training."""
    task = load_task("digits", batch_size=256)
    torch.manual_seed(seed)
    return weights(es.model(f"{folder}/net.py:net", classes=task.classes))


def loaded(gone_through: tuple[Outcome, Path, Begun], number: int) -> Weights:
    _, folder, _ = gone_through
    return weights(es.load(file_of(gone_through, number), es.model(f"{folder}/net.py:net", classes=10)))


def masks_by_hand(trained: Weights, survivors: Weights, left: float) -> Weights:
    """Return booleans: of each weight's survivors the largest, so that ``left`` of all are left."""
    found = {}
    for name, weight in trained.items():
        if weight.dim() < 2:
            continue
        alive = survivors.get(name, torch.ones_like(weight, dtype=torch.bool)).flatten()
        order = sorted(alive.nonzero().flatten().tolist(), key=lambda i: -abs(float(weight.flatten()[i])))
        kept = torch.zeros_like(alive)
        kept[order[: weight.numel() - round((1 - left) * weight.numel())]] = True
        found[name] = kept.view(weight.shape)
    return found


def test_a_ticket_is_theta_0_on_the_largest_of_the_trained_survivors(gone_through: tuple[Outcome, Path, Begun]) -> None:
    _, folder, begun = gone_through
    theta_0, survivors = beginning(folder), {}
    for number, left in ((1, 0.5), (2, 0.25)):
        survivors = masks_by_hand(loaded(gone_through, number - 1), survivors, left)
        ticket = begun[TICKET, number]
        for name, value in theta_0.items():
            kept = survivors.get(name, torch.ones_like(value, dtype=torch.bool))
            assert torch.equal(ticket[name], torch.where(kept, value, 0.0)), (number, name)
        masks = read_masks(file_of(gone_through, number).with_suffix(".masks.safetensors"))
        assert all(torch.equal(masks.kept[name], kept) for name, kept in survivors.items())
        after = loaded(gone_through, number)
        assert all(not after[n][~k].any() and not torch.equal(after[n], ticket[n]) for n, k in survivors.items())


def test_each_control_differs_in_one_thing(gone_through: tuple[Outcome, Path, Begun]) -> None:
    _, folder, begun = gone_through
    theta_0 = beginning(folder)
    for number in (1, 2):
        trained = loaded(gone_through, number - 1)
        ticket, fresh, random, tuned = (begun[arm, number] for arm in (TICKET, FRESH, RANDOM_MASK, FINETUNED))
        for name in (name for name, value in theta_0.items() if value.dim() > 1):
            kept = ticket[name] != 0
            assert torch.equal(tuned[name], torch.where(kept, trained[name], 0.0))
            assert torch.equal(fresh[name] != 0, kept) and not (fresh[name] == theta_0[name])[kept].any()
            shuffled = random[name] != 0
            assert int(shuffled.sum()) == int(kept.sum()) and not torch.equal(shuffled, kept)
            assert torch.equal(random[name], torch.where(shuffled, theta_0[name], 0.0))


def test_all_arms_train_alike_but_for_the_rate_of_fine_tuning(gone_through: tuple[Outcome, Path, Begun]) -> None:
    outcome, _, _ = gone_through
    for job, known in outcome.of("lottery"):
        training = dict(job.options["training"])
        assert training.pop("lr") == pytest.approx(0.03 if job.cell["arm"] == FINETUNED else 0.3)
        assert training["epochs"] == 3 and known.outcome and len(known.outcome["curve"]) == 3
        assert known.outcome["density"] == pytest.approx(0.5 if job.cell["round"] == 1 else 0.25, abs=2e-3)


def test_nothing_is_computed_twice_and_one_more_seed_is_new(gone_through: tuple[Outcome, Path, Begun]) -> None:
    outcome, folder, _ = gone_through
    again = run(outcome.study, folder)
    assert again.computed == 0 and findings(again).to_json() == findings(outcome).to_json()
    file_of(gone_through, 1).rename(folder / "away")
    mended = run(outcome.study, folder)
    assert mended.computed == 1 and not mended.failed  # the ticket that others went on from, alone
    assert file_of(gone_through, 1).read_bytes() == (folder / "away").read_bytes()


def test_the_report_has_the_picture_and_its_numbers(gone_through: tuple[Outcome, Path, Begun]) -> None:
    outcome, folder, _ = gone_through
    two = run(outcome.study.model_copy(update={"seeds": (0, 1)}), folder)
    found = findings(two)
    picture, table, speed = found.sections[0].parts
    assert isinstance(picture, Lines) and isinstance(table, Table) and isinstance(speed, Table)
    assert [name for name, _ in picture.lines] == list(ARMS) and picture.x_log
    values = {
        (job.cell["arm"], job.cell["round"], job.cell["seed"]): 100 * known.outcome["test"]
        for job, known in two.of("lottery")
        if known.outcome
    }
    for (name, line), spread in zip(picture.lines, picture.spreads, strict=True):
        assert [round(x) for x, _ in line] == [100, 50, 25]
        for number, (_, mean), (_, low, high) in zip((1, 2), line[1:], spread[1:], strict=True):
            both = [values[name, number, seed] for seed in (0, 1)]
            assert (mean, low, high) == pytest.approx((sum(both) / 2, min(both), max(both)))
    assert len(table.rows) == len(speed.rows) == 3 and len(table.head) == len(table.rows[1]) == 7
    assert "within half a point" in found.lead and len(found.numbers["digits"]["runs"]) == 16
    page = render_study(found)
    assert page.count('<polyline class="curve') == len(ARMS) and page.count('class="mark s3" x=') == 3


def test_the_reach_ends_at_the_first_round_that_falls_behind(tmp_path: Path) -> None:
    study = checked(data(tmp_path))
    scores = {1: 0.90, 2: 0.896, 3: 0.85, 4: 0.91}
    rows: Any = {(TICKET, n): {0: {"test": v, "density": 0.5**n}} for n, v in scores.items()}
    dense: Any = {0: {"test": 0.9}}
    assert reach(study, rows, dense, TICKET) == 0.25 and reach(study, rows, dense, FRESH) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sparcity": 0.9}, "did you mean 'sparsity'"),
        ({"sparsity": 1.0}, "less than 1"),
        ({"rounds": 0}, "rounds"),
        ({"kind": "lotery"}, "did you mean 'lottery'"),
    ],
)
def test_mistakes(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=words):
        checked(data(tmp_path, **change))


def test_what_has_no_beginning_is_refused_and_patterns_are_checked_first(tmp_path: Path) -> None:
    given = data(tmp_path)
    with pytest.raises(StudyError, match="reset to where training began"):
        checked({**given, "tasks": [{**given["tasks"][0], "weights": "w.safetensors"}]})
    with pytest.raises(StudyError, match="train has no epochs"):
        checked({**given, "tasks": [{**given["tasks"][0], "train": {"epochs": 0}}]})
    with pytest.raises(EspalierError, match=r"Did you mean '5\.weight'"):
        jobs_of(checked({**given, "layers": {"7.weight": 0.5}}))
