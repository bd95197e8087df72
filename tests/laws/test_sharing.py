"""Sharing: members of a cluster stay one number through training, cuts, copies, files and checkpoints."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import espalier as es
from espalier.core import SharingError
from espalier.engines.engine import Alone
from espalier.graph.masks import Masks, mask_, masks_of
from espalier.graph.recording.tensors import named_tensors
from espalier.graph.sharing import Sharing, share_, shared, sharing_in, sharing_of, unshare_
from espalier.recipes import Training
from espalier.recipes.training.clustering import Clustering
from espalier.recipes.training.learner import Learner
from espalier.recipes.training.lesson import Lesson, Position
from espalier.recipes.training.loop import train
from espalier.recipes.training.state import State, read_state, write_state
from espalier.tasks import Task, load_task

from .lessons import equal, images, taught


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_task("digits", batch_size=256)


def clustered(*, masked: bool = True, bits: int = 3, per: str = "tensor") -> nn.Module:
    model = es.sparsify(images(), 0.5) if masked else images()
    return es.cluster(model, bits, per=per)  # type: ignore[arg-type]


def assert_shared(model: nn.Module, count: int = 3) -> None:
    """See that members are equal, bit by bit, and that symbol 0 is 0."""
    sharing, tensors = sharing_of(model), named_tensors(model)
    assert len(sharing.symbols) == count
    for name, symbols in sharing.symbols.items():
        values = tensors[name].detach()
        for symbol in symbols.unique().tolist():
            assert len(values[symbols == symbol].unique()) == 1, (name, symbol)
        assert not values[symbols == 0].any() and values[symbols != 0].any()


@pytest.mark.parametrize(
    "training",
    [
        Training(epochs=2, lr=0.01, momentum=0.9, weight_decay=0.1),
        Training(epochs=2, lr=0.01, optimizer="adamw", weight_decay=0.5),
        Training(epochs=2, lr=0.01, ema_decay=0.9, accumulate_steps=2, clip_norm=0.5, channels_last=True),
    ],
    ids=["momentum", "adamw", "average"],
)
@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_members_are_one_number_after_training(training: Training, per: str, digits: Task) -> None:
    model = clustered(per=per)
    before = {name: tensor.detach().clone() for name, tensor in named_tensors(model).items()}
    learner, _ = taught(digits, training, model)
    assert_shared(learner.model)
    assert learner.average is None or sharing_of(learner.average.model) is sharing_of(learner.model)
    if learner.average is not None:
        assert_shared(learner.average.model)
    tensors = named_tensors(learner.model)
    for name in sharing_of(learner.model).symbols:
        assert not torch.equal(tensors[name], before[name])
        for value in learner.optimizer.state[tensors[name]].values():
            if isinstance(value, Tensor) and value.shape == tensors[name].shape:
                assert value.any() and not value[sharing_of(learner.model).symbols[name] == 0].any()


class Centroids(nn.Module):
    """The same network, its weights looked up in codebooks that are the parameters: what clustering is in the paper."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.plain = copy.deepcopy(model)
        self.symbols = {name: one.long() for name, one in sharing_of(model).symbols.items()}
        books, tensors = {}, named_tensors(model)
        for name, symbols in self.symbols.items():
            book = torch.zeros(int(symbols.max()) + 1)
            book[symbols] = tensors[name].detach()
            books[name.replace(".", "_")] = nn.Parameter(book[1:])
        self.books = nn.ParameterDict(books)
        for name in self.symbols:
            named_tensors(self.plain)[name].requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        looked = {
            name: torch.cat([torch.zeros(1), self.books[name.replace(".", "_")]])[symbols]
            for name, symbols in self.symbols.items()
        }
        return torch.func.functional_call(self.plain, looked, x)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_training_is_that_of_the_centroids_alone(kind: str, digits: Task) -> None:
    """dL/dC_k is the sum over members: the loop's clusters go where an optimizer takes the codebooks themselves."""
    model = clustered()
    training = Training(
        epochs=1, lr=0.003, optimizer=kind, weight_decay=0.1, momentum=0.9, schedule="constant", warmup_ratio=0
    )
    learner, _ = taught(digits, training, model)
    twin = Centroids(model).train()
    books = list(twin.books.parameters())
    rest = [p for p in twin.plain.parameters() if p.requires_grad]
    groups = [{"params": books, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    if kind == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(groups, lr=0.003, momentum=0.9, nesterov=True)
    else:
        optimizer = torch.optim.AdamW(groups, lr=0.003)
    task = digits.new_run()
    task.train.epoch = 0
    for inputs, targets in task.train:
        task.loss(twin(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, symbols in twin.symbols.items():
        book = torch.cat([torch.zeros(1), twin.books[name.replace(".", "_")].detach()])
        ours = named_tensors(learner.model)[name].detach()
        moved = (ours - named_tensors(model)[name].detach()).abs().max()
        assert moved > 0.001 and (ours - book[symbols]).abs().max() < 0.01 * moved


def test_a_clustered_stretch_goes_on_from_a_checkpoint_bit_by_bit(digits: Task, tmp_path: Path) -> None:
    training = Training(epochs=1, lr=0.01)
    whole, _ = taught(digits, training, clustered())
    kept = []
    learner = Learner.of(State(clustered()), training)

    def keep(position: Position, extra) -> None:
        data = write_state(tmp_path, f"{len(kept)}", learner.state(0), extra())
        kept.append((json.loads(json.dumps(data)), position))

    train(learner, Lesson(task=digits.new_run(), training=training, stage="x", seed=3), checkpoint=keep)
    data, position = kept[len(kept) // 2]
    state, extra = read_state(tmp_path, data, images())
    assert_shared(state.model)
    again = Learner.of_own(state, training)
    lesson = Lesson(task=digits.new_run(), training=training, stage="x", seed=3)
    train(again, lesson, position=position, extra=extra)
    assert equal(again.model, whole.model)


@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_a_cut_keeps_the_clusters_of_what_it_keeps(per: str, digits: Task) -> None:
    model = clustered(per=per)
    graph = es.trace(model, torch.rand(2, 1, 8, 8))
    small = es.cut(model, graph, es.plan(graph, es.criteria.magnitude(model, graph), es.Budget(macs=0.5)))
    assert_shared(small)
    for name, symbols in sharing_of(small).symbols.items():
        assert symbols.shape == named_tensors(small)[name].shape
    assert sharing_of(model).symbols["3.weight"].shape == (8, 8, 3, 3)
    learner, _ = taught(digits, Training(epochs=1, lr=0.01), small)
    assert_shared(learner.model)


def test_masks_that_come_later_take_weights_out_of_their_clusters(digits: Task) -> None:
    model = clustered(masked=False)
    first = sharing_of(model).symbols["3.weight"].flatten()[0]  # the leader of its cluster is hidden
    hidden = torch.ones(8, 8, 3, 3, dtype=torch.bool)
    hidden[0, 0, 0, 0] = False
    mask_(model, Masks({"3.weight": hidden}))
    learner, _ = taught(digits, Training(epochs=1, lr=0.01), model)
    symbols = sharing_of(learner.model).symbols["3.weight"]
    assert symbols.flatten()[0] == 0 and masks_of(learner.model)
    assert_shared(learner.model)
    assert learner.model.get_parameter("3.weight")[symbols == first].any()


def test_members_that_rounding_has_parted_are_brought_together() -> None:
    learner = Learner.of(State(clustered()), Training(epochs=1))
    clusters = Clustering(learner, Alone(torch.device("cpu")))
    with torch.no_grad():
        for name, symbols in sharing_of(learner.model).symbols.items():
            named_tensors(learner.model)[name].add_(1e-6 * torch.randn(symbols.shape))
    clusters.weights()
    assert_shared(learner.model)


def test_copies_carry_the_sharing_and_files_bring_the_values(tmp_path: Path) -> None:
    model = clustered()
    assert sharing_of(copy.deepcopy(model)) is sharing_of(model)
    es.save(model, tmp_path / "x.safetensors")
    back = es.load(tmp_path / "x.safetensors", model)
    assert equal(back, model) and not sharing_of(back)
    found = sharing_in(back)
    for name, symbols in sharing_of(model).symbols.items():
        pairs = torch.stack([symbols.flatten(), found.symbols[name].flatten()]).unique(dim=1)
        assert pairs.shape[1] == len(symbols.unique()) == len(found.symbols[name].unique())
    es.encode(model, tmp_path / "x.esp")
    assert equal(es.decode(tmp_path / "x.esp", images()), model)  # type: ignore[arg-type]
    unshare_(model)
    assert not sharing_of(model) and equal(back, model)


def test_least_squares_leaves_clustered_layers_as_they_are() -> None:
    dense = es.cluster(images().eval(), 3, keep=("6",))
    graph = es.trace(dense, torch.rand(2, 1, 8, 8))
    plan = es.plan(graph, es.criteria.magnitude(dense, graph), es.Budget(macs=0.5))
    small = es.cut(dense, graph, plan)
    batches = [(torch.rand(16, 1, 8, 8), torch.zeros(16)) for _ in range(4)]
    lines = {line.weight: line for line in es.recovery.least_squares(dense, small, graph, plan, batches)}
    assert_shared(small, count=2)
    assert "it is clustered" in lines["3.weight"].reason and lines["6.weight"].ridge is not None


@pytest.mark.parametrize(
    ("symbols", "words"),
    [
        ({"0.weight": torch.zeros(8, 1, 3, 3)}, "give int32"),
        ({"0.weight": torch.full((8, 1, 3, 3), -1, dtype=torch.int32)}, "begin at 0"),
        ({"0.weight": torch.ones(8, 8, dtype=torch.int32)}, "has shape"),
        ({"0.weigh": torch.ones(8, dtype=torch.int32)}, "0.weight"),
        ({"1.running_mean": torch.ones(8, dtype=torch.int32)}, "no parameter"),
    ],
)
def test_what_does_not_fit_is_refused(symbols: dict[str, Tensor], words: str) -> None:
    model = images()
    before = copy.deepcopy(model)
    with pytest.raises(SharingError, match=words):
        share_(model, Sharing(symbols))
    assert equal(model, before) and not sharing_of(model)


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_the_mean_of_a_cluster_is_its_mean(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 40))
    symbols = torch.tensor(data.draw(st.lists(st.integers(0, 5), min_size=count, max_size=count)), dtype=torch.int32)
    values = torch.tensor(data.draw(st.lists(st.floats(-9, 9, width=32), min_size=count, max_size=count)))
    out = shared(values, symbols)
    for symbol in symbols.unique().tolist():
        here = out[symbols == symbol]
        expected = 0.0 if symbol == 0 else float(values[symbols == symbol].double().mean())
        assert len(here.unique()) == 1 and float(here[0]) == pytest.approx(expected, abs=1e-5)
    assert torch.equal(shared(out, symbols), out)
