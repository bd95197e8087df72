"""The step that quantizes: its result lies on grids, in files and after a resume too, and nothing may move it after."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

import espalier as es
from espalier.coding import Uniform
from espalier.core import BudgetError, FileError, QuantizationError, UnknownNameError
from espalier.core.run import Run
from espalier.graph.grids import Dynamic, Grid, grids_of, off_grid
from espalier.graph.masks import mask_, masks_of
from espalier.graph.sharing import share_, sharing_in, sharing_of
from espalier.methods import MethodError, Quantizer
from espalier.methods.quantizing.learned_step_size import LearnedStepSize
from espalier.methods.quantizing.straight_through import StraightThrough
from espalier.recipes import Finetune, Measure, Prune, Quantize, Recipe, Save, Sparsify, Train, Training
from espalier.recipes.steps.base import RecipeError
from espalier.recipes.training.learner import Learner
from espalier.recipes.training.lesson import Lesson, Position
from espalier.recipes.training.loop import train
from espalier.recipes.training.state import State, read_state, write_state
from espalier.report import render
from espalier.selection.sparsity import Sparsity, choose_masks
from espalier.tasks import Task, load_task
from espalier.transforms import Quantization
from espalier.transforms.bits import Limit, chosen_bits, knapsack

from .lessons import equal, images, taught

METHODS = [
    LearnedStepSize(weight_bits=3, input_bits=3, ends_bits=None),
    StraightThrough(weight_bits=3, input_bits=4, bits={"0": 8}),
]
ONE = Training(epochs=1, lr=0.02)


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_task("digits", batch_size=128)


@pytest.fixture(scope="module")
def trained(digits: Task) -> torch.nn.Module:
    return taught(digits, Training(epochs=3, lr=0.1), images())[0].model


@pytest.mark.parametrize("method", METHODS)
def test_training_ends_on_the_grids_and_learns(method, digits: Task, trained, tmp_path: Path) -> None:
    assert isinstance(method, Quantizer)
    start = digits.evaluate(es.quantize(trained, digits, Quantization(
        weight_bits=3, input_bits=3, min_sqnr_db=-99, correct_biases=False)).model, digits.validation)  # fmt: skip
    learner, end = taught(digits, Training(epochs=3, lr=0.02), copy.deepcopy(trained), method=method)
    model, grids = learner.model, grids_of(learner.model)
    assert grids.weights.keys() == {"0.weight", "3.weight", "6.weight"} and not list(off_grid(grids, model))
    assert {g.bits for g in grids.weights.values()} == ({3} if method is METHODS[0] else {3, 8})
    assert end.history[-1].accuracy is not None and end.history[-1].accuracy > start - 0.02
    assert digits.evaluate(copy.deepcopy(model), digits.validation) == end.history[-1].accuracy  # no hook is left open
    es.save(model, tmp_path / "a.safetensors")
    back = es.load(tmp_path / "a.safetensors", images())
    assert torch.equal(back.eval()(digits.example()), model.eval()(digits.example()))
    made = {
        name: Uniform(integers=grid.integers(model.get_parameter(name)), step=grid.step, axis=grid.axis)
        for name, grid in grids.weights.items()
    }
    assert es.encode(model, tmp_path / "a.esp", tensors=made).bytes < (tmp_path / "a.safetensors").stat().st_size / 2


@pytest.mark.parametrize("method", METHODS)
def test_training_on_grids_goes_on_bit_by_bit(method, digits: Task, trained, tmp_path: Path) -> None:
    whole, _ = taught(digits, ONE, copy.deepcopy(trained), method=method)
    learner, kept = Learner.of(State(copy.deepcopy(trained)), ONE), []

    def keep(position: Position, extra) -> None:
        if position.batch == 4:
            kept.append((write_state(tmp_path, "half", learner.state(0), extra()), position))

    train(learner, Lesson(task=digits.new_run(), training=ONE, stage="x", seed=3, method=method), checkpoint=keep)
    (data, position), *_ = kept
    state, extra = read_state(tmp_path, data, images())
    again = Learner.of_own(state, ONE)
    lesson = Lesson(task=digits.new_run(), training=ONE, stage="x", seed=3, method=method)
    train(again, lesson, position=position, extra=extra)
    assert equal(again.model, whole.model)
    assert grids_of(again.model).to_data() == grids_of(whole.model).to_data()


def test_masked_weights_stay_zero_on_the_grid(digits: Task, trained) -> None:
    model = copy.deepcopy(trained)
    mask_(model, choose_masks(model, Sparsity(overall=0.7)))
    learner, _ = taught(digits, ONE, model, method=METHODS[0])
    for name, kept in masks_of(learner.model).kept.items():
        assert not learner.model.get_parameter(name)[~kept].any() and (~kept).any()
    assert not list(off_grid(grids_of(learner.model), learner.model))


def test_a_cut_while_real_weights_are_held_is_refused() -> None:
    with pytest.raises(MethodError, match="cut it before"):
        METHODS[0].after_cut(None, None, None)  # type: ignore[arg-type]


def test_training_a_quantized_network_takes_it_off_its_grids_and_says_so(digits: Task, trained) -> None:
    model = es.quantize(trained, digits).model
    learner, end = taught(digits, ONE, model)
    assert not grids_of(learner.model).weights and grids_of(learner.model).inputs
    assert any("takes them off" in note for note in end.notes)


def test_a_run_quantizes_what_it_has_cut(digits: Task, trained, tmp_path: Path) -> None:
    steps = (Prune(macs=0.5), Quantize(batches=2), Measure(latency=False), Save())
    result = es.compress(copy.deepcopy(trained), digits, Recipe(steps=steps), folder=tmp_path / "run")
    grids = grids_of(result.model)
    assert len(grids.weights) == 3 and not list(off_grid(grids, result.model))
    assert all(isinstance(one, Grid) and one.bits == 8 for one in grids.inputs.values())
    run = Run.from_json((tmp_path / "run" / "run.json").read_text())
    assert [row.name for row in run.quantized] == ["0", "3", "6"] and run.sqnr_db is not None and run.sqnr_db > 20
    assert run.path[-1].stage == "quantized to 8 bits after training"
    page = " ".join(render(run).replace("\N{NO-BREAK SPACE}", " ").split())
    for text in ("What lies on grids", "weights of 8 bits", "weights 8 bits, inputs 8 bits, static", "dB of signal"):
        assert text in page
    back = es.load(tmp_path / "run" / "model.safetensors", images().eval())
    assert torch.equal(back(digits.example()), result.model(digits.example()))


def test_a_run_trains_on_grids(digits: Task, trained, tmp_path: Path) -> None:
    step = Quantize(method="lsq", weight_bits=4, input_bits=4, finetune=ONE)
    result = es.compress(copy.deepcopy(trained), digits, Recipe(steps=(step, Measure(latency=False))))
    assert [(row.weight_bits, row.sqnr_db) for row in result.run.quantized] == [(8, None), (4, None), (8, None)]
    assert not list(off_grid(grids_of(result.model), result.model))


@pytest.mark.parametrize("limit", [Limit(size_ratio=0.15), Limit(bit_operations_ratio=0.02), Limit(size_bytes=9000)])
def test_bits_are_chosen_within_a_limit(limit: Limit, digits: Task, trained) -> None:
    data = [next(iter(digits.validation))]
    loose = Quantization(min_sqnr_db=-99, correct_biases=False)
    how = chosen_bits(trained, data, loose, limit, choices=(2, 3, 4, 6, 8))
    assert how.bits.keys() == {"0.weight", "3.weight", "6.weight"}
    found = es.quantize(trained, data, how)
    total = sum(p.numel() * 4 for p in trained.parameters())
    packed = total - sum(row.dense_bytes - row.packed_bytes for row in found.layers)
    if limit.size_ratio is not None:
        assert 0.8 * limit.size_ratio * total < packed <= limit.size_ratio * total
    if limit.size_bytes is not None:
        assert packed <= limit.size_bytes
    with pytest.raises(BudgetError, match="the limit"):
        chosen_bits(trained, data, loose, Limit(size_ratio=0.01), choices=(4, 8))


def test_the_knapsack_is_the_best_of_all() -> None:
    import itertools

    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        values = torch.rand(4, 3, generator=generator).tolist()
        costs = torch.randint(1, 100, (4, 3), generator=generator).tolist()
        room = 4096 / 4096 * 200.0
        every = [
            (sum(v[k] for v, k in zip(values, ks, strict=True)), ks)
            for ks in itertools.product(range(3), repeat=4)
            if sum(c[k] for c, k in zip(costs, ks, strict=True)) <= 0.998 * room
        ]
        if not every:
            continue
        found = knapsack(values, costs, room)
        assert sum(c[k] for c, k in zip(costs, found, strict=True)) <= room
        assert sum(v[k] for v, k in zip(values, found, strict=True)) <= min(every)[0] + 1e-9


def test_after_quantize_nothing_moves_the_weights() -> None:
    quantize = Quantize()
    for step in (Finetune(), Prune(macs=0.5), Sparsify(sparsity=0.5), Train(), Quantize()):
        with pytest.raises(RecipeError, match=f"{step.kind} follows quantize"):
            Recipe(steps=(quantize, step))
    assert Recipe(steps=(Train(), quantize, Save(), Measure())).whole()
    assert [step.kind for step in Recipe(steps=(quantize,)).whole().steps] == ["quantize", "save", "measure"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "lsq"}, "give finetune"),
        ({"finetune": ONE}, "does not train"),
        ({"method": "lsq", "finetune": ONE, "calibration": "minmax"}, "calibration is for method"),
        ({"method": "ste", "finetune": ONE, "size_ratio": 0.5}, "size_ratio is for method"),
        ({"method": "lsq", "finetune": Training(ema_decay=0.9)}, "ema_decay"),
        ({"size_ratio": 0.5, "size_bytes": 7}, "one budget"),
        ({"size_ratio": 0.5, "bits": {"a": 4}}, "give one of both"),
        ({"bit_operations_ratio": 0.5, "inputs": "none"}, "gives them none"),
        ({"weight_bits": 1}, "weight_bits"),
        ({"bits": {"a": 99}}, "bits"),
        ({"choices": ()}, "choices"),
    ],
)
def test_what_does_not_go_together_is_said(fields: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Quantize(**fields)


def test_mistakes_are_found_before_the_run(digits: Task, trained) -> None:
    for step in (Quantize(keep=("nobody",)), Quantize(bits={"nobody": 4})):
        with pytest.raises(UnknownNameError, match="nobody"):
            es.compress(copy.deepcopy(trained), digits, Recipe(steps=(Train(epochs=50), step)))
    step = Quantize(weight_bits=2, input_bits=2, min_sqnr_db=60)
    with pytest.raises(QuantizationError, match="The noisiest layers"):
        es.compress(copy.deepcopy(trained), digits, Recipe(steps=(step,)))


def test_inputs_can_be_left_alone_or_found_in_each_call(digits: Task, trained) -> None:
    for inputs, kind in (("none", None), ("dynamic", Dynamic)):
        recipe = Recipe(steps=(Quantize(inputs=inputs, batches=1), Measure(latency=False)))
        grids = grids_of(es.compress(copy.deepcopy(trained), digits, recipe).model)
        assert {type(one) for one in grids.inputs.values()} == ({kind} if kind else set())


def test_weights_that_shared_values_do_so_no_longer(digits: Task, trained) -> None:
    model = copy.deepcopy(trained)
    with torch.no_grad():
        model[3].weight.copy_((model[3].weight * 4).round() / 4)
    share_(model, sharing_in(model))
    found = es.quantize(model, digits)
    assert not sharing_of(found.model) and any("share them no longer" in note for note in found.notes)
    with pytest.raises(MethodError, match="in the place of cluster"):
        taught(digits, ONE, model, method=METHODS[0])


def test_a_file_whose_weights_left_their_grids_is_refused(digits: Task, trained, tmp_path: Path) -> None:
    model = es.quantize(trained, digits).model
    with torch.no_grad():
        model[0].weight.mul_(1.001)
    with pytest.raises(FileError, match="does not lie on its grid"):
        es.save(model, tmp_path / "a.safetensors")
