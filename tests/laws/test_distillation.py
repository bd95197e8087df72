"""Laws of distillation: kept channels line up after any cuts, teachers stay as they are, and nothing is left behind."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import espalier as es
from espalier.core import Role, Slice, Surgery, UnknownNameError
from espalier.graph.operate import operate
from espalier.losses import (
    AttentionTransfer,
    DistillationError,
    FeatureHints,
    Hinton,
    LogitRegression,
    Objective,
    Together,
    layers,
)
from espalier.zoo.cifar_resnet import CifarResNet
from espalier.zoo.digits_cnn import digits_cnn

ALL = [
    Hinton(),
    LogitRegression(),
    FeatureHints(),
    FeatureHints(adapter="learned"),
    AttentionTransfer(),
    Together((Hinton(), FeatureHints(), AttentionTransfer())),
]


class Tokens(nn.Module):
    """Two pre-norm transformer blocks on a class token and eight others."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 16)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.position = nn.Parameter(torch.randn(1, 9, 16))
        self.blocks = nn.ModuleList(_Block() for _ in range(2))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), self.embed(x)], 1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(b, n, -1))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "residual": lambda: (CifarResNet(8), torch.randn(3, 3, 8, 8)),
    "digits": lambda: (digits_cnn(), torch.randn(3, 1, 8, 8)),
    "tokens": lambda: (Tokens(), torch.randn(3, 8, 5)),
}


def cut_at_random(model: nn.Module, x: Tensor, seed: int, macs: float) -> nn.Module:
    graph = es.trace(model, x)
    return es.cut(model, graph, es.plan(graph, es.criteria.random(model, graph, seed=seed), es.Budget(macs=macs)))


def pair(name: str, macs: tuple[float, ...] = (0.7, 0.7)) -> tuple[nn.Module, nn.Module, Tensor]:
    """Return a dense network, the same network after several random cuts, and inputs, in float64."""
    return copy.deepcopy(_pair(name, macs))


@functools.cache
def _pair(name: str, macs: tuple[float, ...]) -> tuple[nn.Module, nn.Module, Tensor]:
    torch.manual_seed(0)
    dense, x = NETWORKS[name]()
    dense, x = dense.double().eval(), x.double()
    for module in dense.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)  # type: ignore[arg-type]
    small = dense
    for seed, share in enumerate(macs):
        small = cut_at_random(small, x, seed, share)
    return dense, small, x


def without_the_lost(dense: nn.Module, x: Tensor, surgery: Surgery) -> nn.Module:
    """Return the dense network with nothing reading the units that ``surgery`` removes: they change nothing."""
    deaf = copy.deepcopy(dense)
    tensors = dict(deaf.named_parameters())
    readers = {
        (slot.tensor, slot.dim)
        for group in es.trace(dense, x).groups.values()
        for slot in group.slots
        if slot.role is Role.READER
    }
    with torch.no_grad():
        for place in readers & surgery.slices.keys():
            one = surgery.slices[place]
            lost = sorted(set(range(one.size)) - set(one.keep))
            tensors[one.tensor].index_fill_(one.dim, torch.tensor(lost), 0.0)
    return deaf


def ask(objective: Objective, teacher: Any, student: nn.Module, x: Tensor, example: Any = None) -> Tensor:
    with objective.attached(teacher, student, example=x if example is None else example) as term:
        outputs = student(x)
        return term(x, outputs, None, outputs.sum() * 0)


# ---- channels line up -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", ["index", "learned"])
@pytest.mark.parametrize("name", ["residual", "digits"])
def test_kept_channels_line_up_after_two_cuts(name: str, adapter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dense, small, x = pair(name)
    surgery = small.espalier_surgery
    deaf = without_the_lost(dense, x, surgery)  # type: ignore[arg-type]
    student = operate(deaf, surgery)  # type: ignore[arg-type]
    modules = [n for n, m in dense.named_modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    blocks = {"residual": ["layer1", "layer2.0", "layer3"], "digits": ["stem", "block1", "block2"]}[name]
    index = FeatureHints(layers=(*modules, *blocks))
    assert ask(index, deaf, student, x).item() == pytest.approx(0, abs=1e-24)
    if adapter == "learned":  # it begins as the index: what it adds is the channels that are gone
        lost = ask(FeatureHints(adapter="learned", layers=tuple(blocks)), deaf, student, x).item()
        expected = [gone(deaf, small, x, block) for block in blocks]
        assert lost == pytest.approx(sum(expected) / len(blocks), rel=1e-6)
        return
    right = layers.kept_positions

    def off_by_one(*args: Any) -> dict[int, tuple[int, ...]]:
        return {d: tuple(max(i - 1, 0) for i in kept) for d, kept in right(*args).items()}

    monkeypatch.setattr(layers, "kept_positions", off_by_one)
    assert ask(index, deaf, student, x).item() > 0.01


def gone(teacher: nn.Module, small: nn.Module, x: Tensor, block: str) -> float:
    """Return the share of a block's energy that lies in channels which the student does not have."""
    found: list[Tensor] = []
    handle = teacher.get_submodule(block).register_forward_hook(lambda m, i, o: found.append(o.detach()))
    teacher(x)
    handle.remove()
    last = [m for m in small.get_submodule(block).modules() if isinstance(m, nn.BatchNorm2d)][-1]
    norm = next(name for name, module in small.named_modules() if module is last)
    one = small.espalier_surgery.slices.get((f"{norm}.weight", 0))  # type: ignore[union-attr]
    energy = found[0].square().sum((0, 2, 3))
    kept = energy[list(one.keep)] if one else energy
    return float(1 - kept.sum() / energy.sum())


def test_token_features_line_up_with_the_embedding() -> None:
    dense, small, x = pair("tokens")
    surgery = small.espalier_surgery
    found = layers.match_layers(dense, small, layers.Call(x), (), stages=2)
    assert [match.teacher for match in found] == ["blocks.0", "norm"]
    kept = surgery.slices["norm.weight", 0].keep  # type: ignore[union-attr]
    assert len(kept) < 16
    assert all(match.channel == 2 and match.kept == {2: kept} for match in found)
    inner = ("blocks.0.up", "blocks.1.up", "blocks.0.qkv", "blocks.1.qkv")
    slices = [surgery.slices.get((f"{name}.weight", 0)) for name in inner]  # type: ignore[union-attr]
    assert any(slices)
    hidden = layers.match_layers(dense, small, layers.Call(x), inner, stages=1)
    assert [match.kept for match in hidden] == [{2: one.keep} if one else {} for one in slices]


@pytest.mark.parametrize("objective", ALL[2:], ids=repr)
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_reach_every_cut_network(name: str, objective: Objective) -> None:
    dense, small, x = pair(name)
    small.train()
    ask(objective, dense, small, x).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in small.parameters())


def test_a_teacher_that_was_cut_itself() -> None:
    dense, small, x = pair("residual", (0.7,))
    smaller = cut_at_random(small, x, 5, 0.6)
    deaf = without_the_lost(dense, x, smaller.espalier_surgery)  # type: ignore[arg-type]
    teacher, student = (operate(deaf, model.espalier_surgery) for model in (small, smaller))  # type: ignore[arg-type]
    assert ask(FeatureHints(), teacher, student, x).item() == pytest.approx(0, abs=1e-24)
    with pytest.raises(DistillationError, match="was cut before.*name the layers"):
        ask(FeatureHints(), student, teacher, x)


def test_a_surgery_since_an_earlier_one() -> None:
    dense, small, x = pair("residual")
    first = cut_at_random(dense, x, 0, 0.7)
    since = small.espalier_surgery.since(first.espalier_surgery)  # type: ignore[union-attr]
    again = first.espalier_surgery.then(since)  # type: ignore[union-attr]
    assert again.slices == small.espalier_surgery.slices  # type: ignore[union-attr]
    assert Surgery().since(Surgery()) == Surgery()
    one = Surgery({("w", 0): Slice("w", 0, (0, 2), 3)})
    assert one.since(one).slices == {("w", 0): Slice("w", 0, (0, 1), 2)}
    with pytest.raises(ValueError, match="position 1 of 'w', dimension 0, was cut before"):
        Surgery().since(one)


# ---- which layers -----------------------------------------------------------------------------------------------


def stages(model: nn.Module, x: Tensor, count: int) -> list[str]:
    graph = es.trace(model, x)
    return layers.stage_ends(graph, layers.features(graph).values(), count)


def test_stage_ends() -> None:
    resnet = CifarResNet(20)
    assert stages(resnet, torch.zeros(2, 3, 32, 32), 4) == ["layer1", "layer2", "layer3"]
    assert stages(resnet, torch.zeros(2, 3, 32, 32), 2) == ["layer2", "layer3"]
    assert stages(digits_cnn(), torch.zeros(2, 1, 8, 8), 4) == ["block1", "block2"]
    perceptron = nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(8, 8), nn.ReLU())), nn.Linear(8, 2))
    assert stages(perceptron, torch.zeros(2, 8), 4) == ["1", "3", "5", "7"]
    assert len(stages(perceptron, torch.zeros(2, 8), 99)) == 8


def test_named_layers_must_be_there_and_run_once() -> None:
    dense, small, x = pair("digits", (0.7,))
    with pytest.raises(UnknownNameError, match="'blok1'. Did you mean 'block1'"):
        ask(FeatureHints(layers=("blok1",)), dense, small, x)
    with pytest.raises(UnknownNameError, match="'relu'.*must run once"):
        ask(FeatureHints(layers=("relu",)), dense, small, x)  # it runs twice
    with pytest.raises(UnknownNameError, match="layer of the student 'nowhere'"):
        ask(AttentionTransfer(layers=(("block1", "nowhere"),)), dense, small, x)


class Other(nn.Module):
    """A student of another kind."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(1, 5, 3, padding=1), nn.Linear(5, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.first(x)).mean((2, 3)))


def test_a_student_that_was_not_cut_by_us() -> None:
    torch.manual_seed(0)
    dense, student, x = digits_cnn(), Other(), torch.randn(3, 1, 8, 8)
    for objective in (FeatureHints(), AttentionTransfer()):
        with pytest.raises(DistillationError, match=r"'stem.0.weight' is missing.*name the layers"):
            ask(objective, dense, student, x)
    named = (("block1", "first"),)
    with pytest.raises(DistillationError, match=r"block1 -> first: no surgery tells .* adapter='learned'"):
        ask(FeatureHints(layers=named), dense, student, x)
    assert ask(AttentionTransfer(layers=named), dense, student, x).item() > 0
    with FeatureHints(layers=named, adapter="learned").attached(dense, student, example=x) as term:
        assert {name: tuple(p.shape) for name, p in term.named_parameters()} == {
            "parts.0.adapters.0.weight": (32, 5),
            "parts.0.adapters.0.bias": (32,),
        }
        outputs = student(x)
        term(x, outputs, None, outputs.sum() * 0).backward()
        assert all(p.grad is not None for p in term.parameters())
    assert ask(Hinton(), dense, student, x).item() > 0


def test_learned_adapters_need_an_example_and_learn() -> None:
    dense, small, x = pair("digits", (0.5,))
    objective = FeatureHints(adapter="learned")
    with pytest.raises(DistillationError, match="example"), objective.attached(dense, small):
        pass
    random = torch.get_rng_state()
    with objective.attached(dense, small, example=x) as term:
        optimizer = torch.optim.Adam(term.parameters(), lr=0.02)
        losses = []
        for _ in range(20):
            loss = term(x, small(x), None, torch.zeros(()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.8 * losses[0]
        assert term.notes == (
            f"block1: {len(small.espalier_surgery.slices['stem.1.weight', 0].keep)} of 32 channels",  # type: ignore[union-attr]
            f"block2: {len(small.espalier_surgery.slices['down.1.weight', 0].keep)} of 64 channels",  # type: ignore[union-attr]
        )
    assert torch.equal(torch.get_rng_state(), random)


# ---- nothing is left behind -------------------------------------------------------------------------------------


def hooks_of(model: nn.Module) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
        for module in model.modules()
    )


def state(model: nn.Module) -> list[Any]:
    tensors = [t.clone() for t in (*model.parameters(), *model.buffers())]
    return [tensors, [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]]


def same_state(model: nn.Module, before: list[Any]) -> bool:
    now = state(model)
    return now[1:] == before[1:] and all(torch.equal(a, b) for a, b in zip(now[0], before[0], strict=True))


@pytest.mark.parametrize("objective", ALL, ids=repr)
def test_nothing_is_left_behind(objective: Objective) -> None:
    dense, small, x = pair("digits")
    dense.train()
    dense.stem.eval()  # type: ignore[union-attr]
    small.train()
    before = state(dense)
    with objective.attached(dense, small, example=x) as term:
        assert not any(module.training for module in dense.modules())
        for _ in range(2):
            outputs = small(x)
            term(x, outputs, None, outputs.square().mean()).backward()
        assert all(p.grad is None for p in dense.parameters())
    assert same_state(dense, before)
    assert hooks_of(dense) == hooks_of(small) == 0
    assert all(module.training for module in small.modules())


@pytest.mark.parametrize("objective", ALL, ids=repr)
def test_nothing_is_left_behind_after_an_exception(objective: Objective) -> None:
    dense, small, x = pair("digits", (0.7,))
    dense.train()
    before = state(dense)
    with pytest.raises(ZeroDivisionError), objective.attached(dense, small, example=x):
        small(x)
        raise ZeroDivisionError
    with (
        pytest.raises(RuntimeError, match="expected input"),
        objective.attached(dense, small, example=x) as term,
    ):
        outputs = small(x)
        term(torch.zeros(3, 7, 8, 8).double(), outputs, None, outputs.sum())
    unfit = FeatureHints(layers=("block1", "nothing like it"))
    with pytest.raises(UnknownNameError), unfit.attached(dense, small, example=x):
        pass
    assert same_state(dense, before)
    assert hooks_of(dense) == hooks_of(small) == 0


def test_a_copy_of_the_student_is_free_of_the_teacher() -> None:
    dense, small, x = pair("digits", (0.7,))
    with FeatureHints().attached(dense, small, example=x) as term:
        outputs = small(x)
        twin = copy.deepcopy(small)
        cut_at_random(small, x, 3, 0.8)
        twin(2 * x)  # a copy's forward must not displace what the student's own left
        assert hooks_of(twin) == 0
        found = term(x, outputs, None, torch.zeros(()))
    assert found.item() == ask(FeatureHints(), dense, small, x).item()


def test_a_teacher_must_stand_apart() -> None:
    dense, small, x = pair("digits", (0.7,))
    with pytest.raises(DistillationError, match="shares modules or parameters"):
        ask(Hinton(), small, small, x)
    twin = copy.deepcopy(dense)
    twin.head.weight = dense.head.weight  # type: ignore[union-attr]
    with pytest.raises(DistillationError, match="deep copy"):
        ask(Hinton(), dense, twin, x)


# ---- forwards ---------------------------------------------------------------------------------------------------


def test_the_first_call_serves_as_example() -> None:
    dense, small, x = pair("digits")
    both = Together((FeatureHints(), AttentionTransfer()))
    with both.attached(dense, small) as term:
        assert term.notes == ()
        lazy = term(x, small(x), None, torch.zeros(()))
        assert len(term.notes) == 4
    assert lazy.item() == ask(both, dense, small, x).item()


class Keywords(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, *, factor: Tensor) -> Tensor:
        return self.model(pixels * factor)


def test_the_first_call_may_have_keywords() -> None:
    dense, x = Keywords(digits_cnn().eval()), torch.randn(3, 1, 8, 8)
    student = Keywords(digits_cnn().eval())
    inputs = {"pixels": x, "factor": torch.tensor(2.0)}
    with AttentionTransfer().attached(dense, student) as term:
        first = term(inputs, student(**inputs), None, torch.zeros(())).item()
    with AttentionTransfer().attached(dense, student) as term:
        mixed = term(inputs, student(x, factor=torch.tensor(2.0)), None, torch.zeros(())).item()
    assert first == mixed == ask(AttentionTransfer(), dense.model, student.model, 2 * x).item() > 0


def test_an_evaluation_does_not_displace_a_training_step() -> None:
    dense, small, x = pair("digits", (0.7,))
    with FeatureHints().attached(dense, small, example=x) as term:
        outputs = small(x)
        with torch.no_grad():
            small(3 * x)
        found = term(x, outputs, None, torch.zeros(()))
    assert found.requires_grad
    assert found.item() == ask(FeatureHints(), dense, small, x).item()


def test_a_term_is_asked_after_every_forward() -> None:
    dense, small, x = pair("digits", (0.7,))
    with FeatureHints().attached(dense, small, example=x) as term:
        outputs = small(x)
        small(x)
        with pytest.raises(DistillationError, match="ran 2 times"):
            term(x, outputs, None, torch.zeros(()))
        term(x, small(x), None, torch.zeros(()))  # and it recovers
        with pytest.raises(DistillationError, match="the very module"):
            term(x, copy.deepcopy(small)(x), None, torch.zeros(()))


@pytest.mark.parametrize("objective", ALL, ids=repr)
def test_the_teacher_follows_the_students_autocast(objective: Objective) -> None:
    dense, small, x = (part.float() for part in pair("digits"))
    seen: list[torch.dtype] = []
    with objective.attached(dense, small, example=x) as term:
        handle = dense.head.register_forward_hook(lambda m, i, o: seen.append(o.dtype))  # type: ignore[union-attr]
        with torch.autocast("cpu", torch.bfloat16):
            outputs = small(x)
        outside = term(x, outputs, None, torch.zeros(()))
        with torch.autocast("cpu", torch.bfloat16):
            inside = term(x, small(x), None, torch.zeros(()))
            assert torch.is_autocast_enabled("cpu")
        plain = term(x, small(x), None, torch.zeros(()))
    handle.remove()
    assert seen == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert outside.dtype == inside.dtype == torch.float32
    assert inside.item() == outside.item() == pytest.approx(plain.item(), rel=0.05)


@pytest.mark.parametrize("objective", ALL, ids=repr)
def test_a_compiled_student(objective: Objective) -> None:
    dense, small, x = pair("digits")
    expected = ask(objective, dense, small, x)
    torch._dynamo.reset()
    with objective.attached(dense, small, example=x) as term:
        compiled = torch.compile(small, backend="eager")
        for _ in range(2):
            found = term(x, compiled(x), None, torch.zeros(()))
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Hinton(temperature=0), "temperature=0: must be above 0"),
        (lambda: Hinton(temperature=float("inf")), "temperature=inf"),
        (lambda: Hinton(weight=1.5), "weight=1.5: must be at least 0 and at most 1"),
        (lambda: LogitRegression(weight=-1), "weight=-1"),
        (lambda: FeatureHints(weight=float("nan")), "weight=nan"),
        (lambda: FeatureHints(adapter="guess"), "adapter='guess'"),  # type: ignore[arg-type]
        (lambda: AttentionTransfer(power=0), "power=0: must be above 0"),
        (lambda: AttentionTransfer(stages=0), "stages=0"),
    ],
)
def test_hyperparameters_out_of_range(make: Callable[[], Objective], message: str) -> None:
    with pytest.raises(DistillationError, match=message):
        make()
