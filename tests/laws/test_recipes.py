"""Recipes are data: the same in Python, TOML, YAML and JSON; and every mistake is reported at once."""

from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.backends.registry import BACKENDS
from espalier.core import FileError
from espalier.recipes import (
    STEPS,
    Finetune,
    Measure,
    Prune,
    Recipe,
    RecipeError,
    Recover,
    Save,
    Settings,
    Sparsify,
    Train,
    parse,
    read,
    schema,
    write,
)
from espalier.recipes.settings import SettingsError
from espalier.recipes.steps import Distill, Training
from espalier.recipes.steps.base import Backend

GOLDEN = Path(__file__).parents[1] / "golden" / "recipe.schema.json"

names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
ratios = st.floats(0.01, 1.0)
trainings = st.fixed_dictionaries(
    {},
    optional={
        "epochs": st.integers(0, 300),
        "lr": st.floats(1e-6, 10),
        "optimizer": st.sampled_from(["sgd", "adamw"]),
        "schedule": st.sampled_from(["cosine", "one_cycle", "constant"]),
        "clip_norm": st.none() | st.floats(0.1, 10),
        "ema_decay": st.none() | st.floats(0.1, 0.9999),
        "channels_last": st.booleans(),
    },
)
prunes = st.fixed_dictionaries(
    {"macs": ratios | st.integers(1, 10**12)},
    optional={
        "params": ratios,
        "max_drop": st.floats(0, 100),
        "criterion": st.sampled_from(["taylor", "lamp", "random"]),
        "keep": st.lists(names, max_size=3).map(tuple),
        "limit": st.dictionaries(names, ratios, max_size=3),
        "only": st.none() | st.lists(names, max_size=2).map(tuple),
        "floor": st.none() | st.integers(1, 99) | ratios,
        "finetune": st.none() | trainings.map(Training.model_validate),
        "recover": st.sampled_from([(), ("batch_norm",), ("least_squares", "batch_norm")]),
    },
)
sparsities = st.fixed_dictionaries(
    {"sparsity": st.floats(0.01, 0.99)},
    optional={
        "layers": st.dictionaries(names, st.floats(0.01, 0.99), max_size=3),
        "scope": st.sampled_from(["layer", "global"]),
        "keep": st.lists(names, max_size=3).map(tuple),
        "only": st.none() | st.lists(names, max_size=2).map(tuple),
        "ranking": st.sampled_from(["magnitude", "random"]),
        "finetune": st.none() | trainings.map(Training.model_validate),
    },
)
steps = st.lists(
    st.one_of(
        trainings.map(Train.model_validate),
        prunes.map(Prune.model_validate),
        sparsities.map(Sparsify.model_validate),
        trainings.map(Finetune.model_validate),
        trainings.map(Distill.model_validate),
        st.just(Save()),
    ),
    min_size=1,
    max_size=4,
)
recipes = st.builds(
    lambda steps, seed, model, size, measured: Recipe(
        steps=(*steps, *measured), seed=seed, model=model, image_size=size
    ),
    steps,
    st.integers(0, 2**31),
    st.just("") | names,
    st.none() | st.integers(1, 512),
    st.sampled_from([(), (Measure(latency=False),), (Measure(rounds=7, threads=2),)]),
)


@given(recipes)
def test_recipes_survive_every_notation(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> None:
    folder = tmp_path_factory.getbasetemp()
    for suffix in (".toml", ".yaml", ".json"):
        write(recipe, folder / f"recipe{suffix}")
        assert read(folder / f"recipe{suffix}") == recipe
    assert recipe.whole().whole() == recipe.whole()
    assert Recipe.model_validate(recipe.model_dump()).key() == recipe.key()


def test_a_ratio_stays_a_ratio_and_a_number_a_number() -> None:
    for value in (1.0, 1, 0.5, 1000):
        text = f'[[steps]]\nkind = "prune"\nmacs = {value!r}'
        if value == 1:
            continue
        (step,) = parse(text).steps
        assert isinstance(step, Prune) and type(step.macs) is type(value) and step.macs == value


WRONG = """
sede = 1
batch_size = 1
[[steps]]
kind = "prune"
critrion = "x"
criterion = "tailor"
macs = 1.5
round_to = 0
[steps.finetune]
epoch = 3
[[steps]]
kind = "finetun"
[[steps]]
epochs = 3
[[steps]]
kind = "train"
lr = -1
"""
MISTAKES = [
    "unknown key 'sede'; did you mean 'seed'?",
    "batch_size: input should be greater than or equal to 2 (it is 1)",
    "step 1 (prune): unknown key 'critrion'; did you mean 'criterion'?",
    "step 1 (prune): criterion: unknown criterion 'tailor'; did you mean 'taylor'?",
    "step 1 (prune): macs: with a point it is a share in (0, 1], without one absolute (it is 1.5)",
    "step 1 (prune): round_to: input should be greater than or equal to 1 (it is 0)",
    "step 1 (prune): finetune: unknown key 'epoch'; did you mean 'epochs'?",
    "step 2: unknown kind of step 'finetun'; did you mean 'finetune'?",
    "step 3: unknown kind of step ''; known: train, prune, sparsify, cluster, quantize, recover",
    "step 4 (train): lr: input should be greater than 0 (it is -1)",
]


def test_every_mistake_is_reported_at_once_with_its_place_and_the_nearest_key(tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text(WRONG)
    with pytest.raises(RecipeError) as error:
        read(tmp_path / "wrong.toml")
    lines = str(error.value).splitlines()
    assert all(line.startswith(f"{tmp_path / 'wrong.toml'}: ") for line in lines) and len(lines) == len(MISTAKES)
    for expected in MISTAKES:
        assert any(expected in line for line in lines), expected


def prune(**more: Any) -> dict[str, Any]:
    return {"kind": "prune", **more}


REFUSED: list[tuple[list[dict[str, Any]], str]] = [
    ([], "at least one step"),
    ([prune()], "empty budget"),
    ([prune(macs=0)], "at least 1"),
    ([prune(macs=0.5), {"kind": "measure"}, {"kind": "finetune"}], "measure comes before the end"),
    ([prune(macs=0.5), {"kind": "measure"}, {"kind": "measure"}], "measure is there twice"),
    ([{"kind": "recover"}, prune(macs=0.5)], "recover comes first"),
    ([prune(macs=0.5), {"kind": "distill", "answers": "none"}], "nothing is distilled"),
    ([prune(macs=0.5), {"kind": "save", "name": "../up.safetensors"}], "name"),
    ([prune(macs=0.5, max_drop=float("nan"))], "finite"),
]


@pytest.mark.parametrize(("wrong", "message"), REFUSED)
def test_what_makes_no_sense_is_refused(wrong: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse(json.dumps({"steps": wrong}), ".json")


@pytest.mark.parametrize(
    ("text", "suffix", "error", "message"),
    [
        ("steps = [", ".toml", RecipeError, "r.toml"),
        ("steps: [", ".yaml", RecipeError, "r.yaml"),
        ("!!python/object/apply:os.system ['true']", ".yaml", RecipeError, "r.yaml"),
        ("[]", ".json", RecipeError, "r.json"),
        ("", ".txt", FileError, "toml"),
    ],
)
def test_a_broken_file_gets_one_clear_error(
    tmp_path: Path, text: str, suffix: str, error: type[Exception], message: str
) -> None:
    (tmp_path / f"r{suffix}").write_text(text)
    with pytest.raises(error, match=message):
        read(tmp_path / f"r{suffix}")
    with pytest.raises(FileError, match="cannot read"):
        read(tmp_path / "nowhere.toml")


def test_steps_are_frozen_and_know_their_kind() -> None:
    assert all(step.model_fields["kind"].default == kind for kind, step in STEPS.items())
    with pytest.raises(ValueError, match="frozen"):
        Train().epochs = 3  # type: ignore[misc]
    assert Recover().how == ("least_squares",)


def test_settings_become_recipes() -> None:
    kinds = [step.kind for step in Settings(macs=0.5, train_epochs=1, rounds=2).recipe().whole().steps]
    assert kinds == ["train", "prune", "finetune", "save", "measure"]
    step = Settings(max_drop=1.0, size_mb=2.5, round_epochs=2).recipe().steps[0]
    assert isinstance(step, Prune) and step.size_bytes == 2_500_000 and step.finetune and step.finetune.epochs == 2


def test_settings_that_distil_do_so_in_every_round() -> None:
    for settings in (Settings(max_drop=1.0), Settings(macs=0.5, rounds=2, round_epochs=4, distill="yes")):
        first, last = settings.recipe().steps
        assert isinstance(first, Prune) and first.distill and first.finetune and first.finetune.epochs == 4
        assert last.kind == "distill"
    for settings in (Settings(macs=0.5, rounds=2), Settings(max_drop=1.0, round_epochs=1, distill="no")):
        first, last = settings.recipe().steps
        assert isinstance(first, Prune) and not first.distill and first.finetune and first.finetune.epochs == 1
        assert last.kind == "finetune"


def test_settings_are_measured_where_they_say() -> None:
    def measured(**given: Any) -> Measure:
        step = Settings(**given).recipe().whole().steps[-1]
        assert isinstance(step, Measure)
        return step

    assert measured(macs=0.5) == Measure()
    assert measured(macs=0.5, backend="compile", threads=2) == Measure(backend="compile", threads=2)
    assert measured(latency_ms=3.0, backend="compile") == Measure(backend="compile", threads=1, batch=1)
    assert typing.get_args(Backend) == tuple(BACKENDS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"macs": 3.0}, "without one absolute"),
        ({"params": 0}, "an absolute budget is at least 1"),
        ({"latency_ms": -1.0}, "greater than 0"),
        ({"max_drop": 101.0}, "less than or equal to 100"),
        ({"macs": 0.5, "criterion": "tailor"}, "did you mean 'taylor'"),
        ({"macs": 0.5, "backend": "eagr"}, "eager"),
    ],
)
def test_settings_out_of_range_are_refused_at_once(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Settings(**given)


def test_settings_without_a_limit_name_those_that_there_are() -> None:
    with pytest.raises(SettingsError, match="macs, params, activations, latency_ms, size_mb, max_drop$"):
        Settings().recipe()


def test_the_schema_is_the_one_that_is_published() -> None:
    """After a change on purpose: python -m tests.laws.test_recipes writes it anew."""
    assert schema() == json.loads(GOLDEN.read_text())


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(schema(), indent=1) + "\n")
