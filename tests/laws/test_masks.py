"""Masks: zeros are exact, a cut of the masked is the masked of the cut, ties have one mask, and misfits are refused."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import espalier as es
from espalier.core import FileError, KindError, MaskError, ModelError, UnknownNameError
from espalier.graph.mask_files import read_masks, write_masks
from espalier.graph.masks import Masks, densities, mask_, masks_of, unmask_, zeros_of
from espalier.selection.sparsity import Sparsity, choose_masks, highest

from .lessons import images


class Tied(nn.Module):
    """An embedding whose weight is the head's too."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Linear(8, 6, bias=False), nn.Linear(8, 6)
        self.middle = nn.Linear(6, 8)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.middle(torch.relu(self.embed(x)))))


def random_masks(model: nn.Module, seed: int) -> Masks:
    generator = torch.Generator().manual_seed(seed)
    return choose_masks(model, Sparsity(overall=0.6), ranking="random", generator=generator)


def bits(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().view(torch.int32)


def test_masked_weights_are_exactly_zero_and_the_others_as_they_were() -> None:
    model = images()
    before = copy.deepcopy(model.state_dict())
    masks = random_masks(model, 1)
    assert mask_(model, masks) is model and masks_of(model).kept.keys() == masks.kept.keys()
    for name, weight in model.state_dict().items():
        kept = masks.kept.get(name, torch.ones_like(weight, dtype=torch.bool))
        assert torch.equal(weight[kept], before[name][kept])
        if name in masks.kept:  # plus zero, bit by bit: a minus sign would be another symbol to a coder
            assert not bits(weight)[~kept].any() and (~kept).any()


@pytest.mark.parametrize("prove", [True, False])
@pytest.mark.parametrize("inplace", [True, False])
def test_a_cut_of_the_masked_is_the_masked_of_the_cut(prove: bool, inplace: bool) -> None:
    example = torch.rand(2, 1, 8, 8)
    model, masks = images().eval(), random_masks(images(), 2)
    graph = es.trace(model, example)
    plan = es.plan(graph, es.criteria.random(model, graph, seed=3), es.Budget(macs=0.4))
    masked = mask_(copy.deepcopy(model), masks)
    one = es.cut_(masked, graph, plan, prove=prove) if inplace else es.cut(masked, graph, plan, prove=prove)
    plain = es.cut(model, graph, plan)
    marked = copy.deepcopy(model)  # the masks as weights: what a cut makes of them is what they must be
    for name, weight in marked.named_parameters():
        weight.data = masks.kept[name].float() if name in masks.kept else weight.data
    wanted = {
        name: w for name, w in es.cut(marked, graph, plan, prove=False).state_dict().items() if name in masks.kept
    }
    assert masks_of(one).kept.keys() == masks.kept.keys() and wanted
    for name, weight in one.state_dict().items():
        if name in wanted:
            assert torch.equal(masks_of(one).kept[name], wanted[name].bool())
            assert torch.equal(weight, plain.state_dict()[name] * wanted[name])
    assert masks_of(copy.deepcopy(one)) is masks_of(one)
    assert not masks_of(plain) and (inplace or masks_of(masked).kept["0.weight"] is masks.kept["0.weight"])


def test_a_graph_module_has_the_masks_too() -> None:
    model = mask_(images().eval(), random_masks(images(), 2))
    graph = es.trace(model, torch.rand(2, 1, 8, 8))
    made = es.to_graph_module(model, graph, es.plan(graph, es.criteria.magnitude(model, graph), es.Budget(macs=0.5)))
    for name, weight in made.named_parameters():
        if name in masks_of(made).kept:
            assert masks_of(made).kept[name].shape == weight.shape and not weight[~masks_of(made).kept[name]].any()


def test_a_tied_weight_has_one_mask_under_its_first_name() -> None:
    model = Tied()
    mask = torch.rand(6, 8) > 0.5
    mask_(model, Masks({"head.weight": mask}))
    assert masks_of(model).kept.keys() == {"embed.weight"} and torch.equal(model.head.weight != 0, mask)
    with pytest.raises(MaskError, match="one tied tensor, and their masks differ"):
        mask_(Tied(), Masks({"head.weight": mask, "embed.weight": ~mask}))
    small = es.sparsify(Tied(), layers={"head": 0.5})
    assert isinstance(small, Tied)
    assert masks_of(small).kept.keys() == {"embed.weight"} and densities(small)[0].kept == 24
    assert small.embed.weight is small.head.weight


def test_masks_only_become_tighter_and_what_is_masked_stays() -> None:
    model = images()
    first, second = random_masks(model, 1), random_masks(model, 2)
    mask_(mask_(model, first), second)
    for name, kept in masks_of(model).kept.items():
        assert torch.equal(kept, first.kept[name] & second.kept[name])
    free = choose_masks(model, Sparsity(overall=0.1))
    assert not any((free.kept[name] & ~kept).any() for name, kept in masks_of(model).kept.items())
    looser = mask_(model, choose_masks(model, Sparsity(overall=0.1)))
    assert all(torch.equal(k, first.kept[n] & second.kept[n]) for n, k in masks_of(looser).kept.items())
    tighter = choose_masks(model, Sparsity(overall=0.95))
    for name, kept in tighter.kept.items():
        assert int((~kept).sum()) == round(0.95 * kept.numel()) and not (kept & ~masks_of(model).kept[name]).any()


def test_what_does_not_fit_is_refused_with_every_mistake_and_nothing_is_touched() -> None:
    model = images()
    before = copy.deepcopy(model.state_dict())
    wrong = Masks(
        {"0.wieght": torch.ones(1).bool(), "3.weight": torch.ones(2).bool(), "1.running_mean": torch.ones(8).bool()}
    )
    with pytest.raises(MaskError) as error:
        mask_(model, wrong)
    for words in (
        "do not fit this Sequential",
        "Did you mean '0.weight'",
        "its mask (2,)",
        "'1.running_mean' is no param",
    ):
        assert words in str(error.value)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()) and not masks_of(model)
    with pytest.raises(MaskError, match="give booleans"):
        Masks({"0.weight": torch.ones(8, 1, 3, 3)})
    with pytest.raises(KindError, match="mask_ takes an nn.Module"):
        mask_("model", Masks())  # type: ignore[arg-type]


def test_densities_count_weights_and_bytes() -> None:
    small = es.sparsify(nn.Linear(20, 10), 0.9)
    (one,) = densities(small)
    assert (one.weights, one.kept, one.dense_bytes, one.packed_bytes) == (200, 20, 800, 25 + 80)
    assert masks_of(small).density == pytest.approx(0.1) and Masks().density == 1.0 and densities(nn.Linear(2, 2)) == ()


def test_zeros_of_a_loaded_model_are_its_masks_and_a_load_brings_none(tmp_path: Path) -> None:
    small = es.sparsify(images(), 0.7)
    es.save(small, tmp_path / "m.safetensors")
    back = es.load(tmp_path / "m.safetensors", small)  # the masks of the given one are not those of the file
    assert not masks_of(back)
    found = zeros_of(back)
    assert found.kept.keys() == masks_of(small).kept.keys()
    assert all(torch.equal(found.kept[name], mask) for name, mask in masks_of(small).kept.items())
    assert not masks_of(unmask_(small)) and not masks_of(unmask_(small))


def test_masks_survive_a_file_and_damage_is_seen(tmp_path: Path) -> None:
    masks, path = random_masks(images(), 5), tmp_path / "sub" / "masks.safetensors"
    write_masks(masks, path)
    back = read_masks(path)
    assert back.kept.keys() == masks.kept.keys()
    assert all(torch.equal(back.kept[name], mask) for name, mask in masks.kept.items())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(FileError, match="does not match its SHA-256"):
        read_masks(path)
    es.save(images(), path)
    with pytest.raises(FileError, match="holds no masks"):
        read_masks(path)
    with pytest.raises(FileError, match="cannot read"):
        read_masks(tmp_path / "nowhere")


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=40), st.floats(0, 1))
def test_the_highest_are_those_that_sorting_leaves(values: list[int], share: float) -> None:
    scores = torch.tensor([float(abs(value)) for value in values])
    order = sorted(range(len(values)), key=lambda i: (abs(values[i]), i))
    wanted = set(order[round(share * len(values)) :])
    assert set(highest(scores, share).nonzero().flatten().tolist()) == wanted


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_a_global_threshold_is_that_of_all_weights_together(share: float) -> None:
    model = images()
    with torch.no_grad():
        model.get_parameter("3.weight").mul_(0.2)  # so that layers lose unequal shares
    masks = choose_masks(model, Sparsity(overall=share, scope="global"))
    named = [(abs(float(w)), n, i) for n in masks.kept for i, w in enumerate(model.get_parameter(n).detach().flatten())]
    gone = sorted(named, key=lambda one: one[0])[: round(share * len(named))]
    for name, kept in masks.kept.items():
        hidden = {i for _, n, i in gone if n == name}
        assert set((~kept).flatten().nonzero().flatten().tolist()) == hidden
    counts = [float(kept.float().mean()) for kept in masks.kept.values()]
    assert max(counts) - min(counts) > 0.05  # else a threshold a layer would have passed


def test_shares_are_those_that_patterns_say() -> None:
    model = images()
    target = Sparsity(overall=0.5, layers={"?.weight": 0.25, "3": 0.75}, keep=("0",))
    kept = choose_masks(model, target).kept
    assert {name: 1 - float(mask.float().mean()) for name, mask in kept.items()} == {"3.weight": 0.75, "6.weight": 0.25}
    only = choose_masks(model, Sparsity(overall=0.5, scope="global", only=("6", "0"))).kept
    assert only.keys() == {"0.weight", "6.weight"}
    with pytest.raises(UnknownNameError, match="Did you mean '6.weight'"):
        choose_masks(model, Sparsity(layers={"7.weight": 0.5}))
    with pytest.raises(UnknownNameError, match="two or more dimensions"):
        choose_masks(model, Sparsity(overall=0.5, keep=("1",)))  # a batch norm is never masked
    with pytest.raises(ModelError, match="nothing of this Sequential"):
        choose_masks(model, Sparsity(overall=0.5, keep=("*",)))
    with pytest.raises(ModelError, match=r"in \[0, 1\]"):
        es.sparsify(model, 1.5)
