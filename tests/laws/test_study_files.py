"""Studies in files: every mistake in one message, with where it is and the nearest valid key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w

from espalier.core import FileError
from espalier.studies import Heuristics, StudyError, read
from espalier.studies.files import checked, to_toml

from .studies import data


def refused(given: Any) -> str:
    with pytest.raises(StudyError) as error:
        checked(given)
    return str(error.value)


def test_a_study_survives_toml_both_ways(tmp_path: Path) -> None:
    given = data(tmp_path)
    del given["name"]
    (tmp_path / "mine.toml").write_text(tomli_w.dumps(given))
    study = read(tmp_path / "mine.toml")
    assert study.name == "mine" and isinstance(study, Heuristics)
    spelled = tmp_path / "spelled.toml"
    text = to_toml(study)
    for line in ('criterion = "taylor"', "macs = 0.5"):
        text = text.replace(line, "")  # what the study itself writes into its prune steps
    spelled.write_text(text)
    assert read(spelled) == study


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    given = data(tmp_path, criteria=["magnitude", "tailor"], ratio=[0.5], seeds=[0, 0])
    given["tasks"][0]["batchsize"] = 3
    given["arms"][1]["steps"][0]["round"] = 2
    given["arms"][0]["steps"][1]["epochs"] = -1
    told = refused(given)
    assert len(told.splitlines()) == 6
    assert "unknown key 'ratio'; did you mean 'ratios'?" in told
    assert "task 1: unknown key 'batchsize'; did you mean 'batch_size'?" in told
    assert "arm 2: step 1 (prune): unknown key 'round'; did you mean 'rounds'?" in told
    assert "arm 1: step 2 (finetune): epochs: " in told
    assert "did you mean 'taylor'?" in told and "0 is there twice" in told


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "heuristic"}, "did you mean 'heuristics'"),
        ({"criteria": ["random"]}, "random is always there"),
        ({"criteria": ["reversed:magnitude"]}, "named in reversed"),
        ({"reversed": []}, "anti-heuristic"),
        ({"ratios": [1.5]}, "ratio 1"),
        ({"tasks": []}, "tasks"),
        ({"arms": []}, "arms"),
    ],
)
def test_a_mistake_says_what_to_do(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    assert words in refused(data(tmp_path, **change))


def with_arms(tmp_path: Path, *changes: Any) -> dict[str, Any]:
    given = data(tmp_path)
    for number, change in enumerate(changes):
        given["arms"][number]["steps"] = change
    return given


def arms(tmp_path: Path, *changes: Any) -> str:
    return refused(with_arms(tmp_path, *changes))


def test_arms_train_alike(tmp_path: Path) -> None:
    cut, train = {"kind": "prune"}, {"kind": "finetune", "epochs": 1}
    assert "baseline 3" in arms(tmp_path, [cut, {**train, "epochs": 3}]) and "mended 1" in arms(
        tmp_path, [cut, {**train, "epochs": 3}]
    )
    rounds = {"kind": "prune", "rounds": 2, "finetune": {"epochs": 1}}
    assert "baseline 3" in arms(tmp_path, [rounds, train])
    assert "mended 0.5" in arms(tmp_path, [cut, train], [cut, {**train, "accumulate_steps": 2}])
    study = data(tmp_path)
    study["arms"][0]["steps"] = [{**rounds}, {**train, "epochs": 2}]
    study["arms"][1]["steps"] = [cut, {"kind": "distill", "epochs": 4}]
    found = checked(study)
    assert isinstance(found, Heuristics) and {arm.epochs for arm in found.arms} == {4}


def test_an_arm_is_one_prune_whose_budget_the_study_gives(tmp_path: Path) -> None:
    cut, train = {"kind": "prune"}, {"kind": "finetune", "epochs": 1}
    assert "one prune step, not 0" in arms(tmp_path, [train])
    assert "one prune step, not 2" in arms(tmp_path, [cut, cut])
    assert "leave macs out" in arms(tmp_path, [{**cut, "macs": 0.3}, train])
    assert "leave criterion out" in arms(tmp_path, [{**cut, "criterion": "lamp"}, train])
    assert "max_drop" in arms(tmp_path, [{**cut, "max_drop": 1.0}, train])
    assert "leave measure out" in arms(tmp_path, [cut, train, {"kind": "measure"}])
    by = {"kind": "prune", "method": "group_fisher", "finetune": {"epochs": 1}}
    assert "group_fisher chooses units itself" in arms(tmp_path, [cut, train], [by])
    assert checked(with_arms(tmp_path, [cut, train], [{**by, "method": "soft_knowledge_relocation"}]))
    given = data(tmp_path)
    given["arms"][1]["name"] = "scratch-E"
    assert "control" in refused(given)
    given["arms"][1]["name"] = "baseline"
    assert "'baseline' is there twice" in refused(given)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileError):
        read(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("criteria = [")
    with pytest.raises(StudyError, match=r"bad\.toml"):
        read(tmp_path / "bad.toml")
    (tmp_path / "list.json").write_text("[1, 2]")
    with pytest.raises(StudyError):
        read(tmp_path / "list.json")
