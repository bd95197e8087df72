"""Recovery against brute force: a layer is linear in its weights, so its design matrix can be had by trying."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from espalier import cut, trace
from espalier.core import ModelError, Plan
from espalier.graph.probes.regressions import KINDS
from espalier.recovery import Fit, least_squares, reestimate_batch_norm, rescale_statistics
from espalier.recovery.normal_equations import Moments, choose

EXACT = Fit(ridges=(1e-13,), positions=10**6)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 4), (5, 3, 6)),
    "conv1d": (lambda: nn.Conv1d(6, 4, 3, padding=1), (2, 6, 7)),
    "conv2d_strided_dilated": (lambda: nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), (2, 1)), (2, 4, 9, 8)),
    "conv2d_same": (lambda: nn.Conv2d(4, 6, (4, 3), padding="same"), (2, 4, 7, 6)),
    "conv2d_valid": (lambda: nn.Conv2d(4, 6, 3, padding="valid"), (2, 4, 7, 6)),
    "conv2d_grouped": (lambda: nn.Conv2d(6, 9, 3, padding=1, groups=3), (2, 6, 5, 6)),
    "conv2d_depthwise": (lambda: nn.Conv2d(6, 12, 3, groups=6), (2, 6, 5, 6)),
    "conv2d_unbatched": (lambda: nn.Conv2d(4, 6, 3, padding=1), (4, 5, 6)),
    "conv3d": (lambda: nn.Conv3d(2, 3, (1, 2, 3), padding=(0, 1, 1)), (2, 2, 3, 4, 5)),
    "conv_transpose1d": (lambda: nn.ConvTranspose1d(3, 5, 4, 2, 1), (2, 3, 6)),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(3, 5, 3, (2, 3), 1, (1, 2), dilation=2), (2, 3, 5, 4)),
    "layer_norm": (lambda: nn.LayerNorm(6), (5, 3, 6)),
    "rms_norm": (lambda: nn.RMSNorm(6), (5, 3, 6)),
    "group_norm": (lambda: nn.GroupNorm(2, 6), (3, 6, 4, 5)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", LAYERS)
def test_features_times_weights_are_what_the_layer_computes(name):
    make, shape = LAYERS[name]
    layer = make().double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(shape, dtype=torch.float64)
    expected = layer(x)
    kind = next(KINDS[n] for n in sorted(KINDS, key=len, reverse=True) if name.startswith(n))
    seen = {}

    class Catch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func.__name__ in KINDS:
                seen["call"] = kind.bind(args, kwargs or {}, lambda item: item is layer.weight)
            return func(*args, **(kwargs or {}))

    with Catch():
        layer(x)
    by_position = kind.by_position(expected, layer.weight)
    rows = torch.unravel_index(torch.arange(by_position[..., 0].numel()), by_position.shape[:-1])
    matrix = kind.matrix(layer.weight, getattr(layer, "groups", 1))
    computed = (kind.features(seen["call"], rows) @ matrix.mT).movedim(1, 0).flatten(1)
    if getattr(layer, "bias", None) is not None:
        computed = computed + layer.bias
    torch.testing.assert_close(computed, by_position[rows], rtol=1e-10, atol=1e-10)
    assert torch.equal(kind.restore(matrix, layer.weight.shape), layer.weight)


def test_the_ridge_solution_is_that_of_augmented_rows():
    x, residual = torch.randn(2, 40, 7, dtype=torch.float64), torch.randn(2, 40, 3, dtype=torch.float64)
    moments = Moments.of(x, residual, residual)
    for ridge in (1e-8, 0.1, 10.0):
        found = moments.solve(ridge)
        for g in range(2):
            own = (ridge * x[g].square().sum(0)).sqrt().diag()
            expected = torch.linalg.lstsq(torch.cat([x[g], own]), torch.cat([residual[g], torch.zeros(7, 3)])).solution
            torch.testing.assert_close(found[g], expected.T, rtol=1e-6, atol=1e-8)
            left = (residual[g] - x[g] @ expected).square().sum(0)
            torch.testing.assert_close(moments.error(found)[g], left, rtol=1e-6, atol=1e-8)


def test_the_ridge_is_the_best_on_held_out_rows_and_nothing_is_a_candidate():
    def rows(count: int, noise: float) -> Moments:
        x = torch.randn(1, count, 20, dtype=torch.float64)
        residual = x[:, :, :1] * 0.3 + noise * torch.randn(1, count, 1, dtype=torch.float64)
        return Moments.of(x, residual, residual)

    held_out = rows(500, 0.1)
    few = choose(rows(24, 0.3), held_out, (1e-6, 3.0))
    assert few.ridge == 3.0  # 24 noisy rows for 20 features: the small ridge fits noise
    assert choose(rows(500, 0.1), held_out, (1e-6, 1.0)).ridge == 1e-6
    nothing = choose(rows(24, 30.0), held_out, (1e-6,))
    assert nothing.change is None and nothing.after == nothing.before


# ---- whole networks -------------------------------------------------------------------------------------------------


class Chain(nn.Module):
    """first, relu, second: the first is cut, the second is fitted."""

    def __init__(self, first: nn.Module, second: nn.Module, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.second, self.norm = first, second, norm or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.second(self.first(x).relu()))


CHAINS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: Chain(nn.Linear(4, 8), nn.Linear(8, 3)), (30, 4)),
    "no_bias": (lambda: Chain(nn.Linear(4, 8), nn.Linear(8, 3, bias=False)), (30, 4)),
    "conv": (lambda: Chain(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3, 2, 1)), (6, 3, 8, 8)),
    "transposed": (lambda: Chain(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 4, 3, 2, 1)), (6, 3, 7, 7)),
    "batch_norm": (lambda: Chain(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3, bias=False), nn.BatchNorm2d(4)), (6, 3, 8, 8)),
}


def prepared(model: nn.Module, shape: tuple[int, ...], count: int = 4) -> tuple[nn.Module, list]:
    model = model.double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model, [(torch.randn(shape, dtype=torch.float64), None) for _ in range(count)]


@pytest.mark.parametrize("name", CHAINS)
def test_the_fit_is_least_squares_over_the_whole_layer(name):
    make, shape = CHAINS[name]
    dense, batches = prepared(make(), shape)
    graph = trace(dense, batches[0][0])
    plan = Plan({"first.weight:0": (0, 2, 3, 6)})
    small = cut(dense, graph, plan)
    x = torch.cat([inputs for inputs, _ in batches[:-1]])  # the last one is held out
    target, read = dense.second(dense.first(x).relu()), small.first(x).relu()
    layer = copy.deepcopy(small.second)
    free = [layer.weight] + ([layer.bias] if layer.bias is not None else [])
    columns = []
    with torch.no_grad():
        for parameter in free:
            parameter.zero_()
        for parameter in free:
            for i in range(parameter.numel()):
                parameter.flatten()[i] = 1.0
                columns.append(layer(read).flatten())
                parameter.flatten()[i] = 0.0
        if name == "batch_norm":  # the offset of every channel, which goes into the running mean
            for channel in range(4):
                columns.append(torch.zeros_like(target).index_fill_(1, torch.tensor(channel), 1.0).flatten())
        solution = torch.linalg.lstsq(torch.stack(columns, 1), target.flatten()).solution
        expected = (torch.stack(columns, 1) @ solution).reshape(target.shape)
        if name == "batch_norm":
            expected = dense.norm(expected)
    (line,) = [
        one for one in least_squares(dense, small, graph, plan, batches, fit=EXACT) if one.weight == "second.weight"
    ]
    assert line.reason == "" and line.after < line.before
    torch.testing.assert_close(small(x), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("norm", [nn.LayerNorm(8), nn.RMSNorm(8), nn.GroupNorm(1, 8)])
def test_norms_over_a_cut_group_are_fitted_channel_by_channel(norm):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.last = nn.Linear(4, 8), copy.deepcopy(norm), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.norm(self.first(x)).relu())

    dense, batches = prepared(Net(), (30, 4))
    for parameter in dense.norm.parameters():
        nn.init.normal_(parameter)
    graph = trace(dense, batches[0][0])
    keep = (1, 2, 4, 5, 7)
    plan = Plan({"first.weight:0": keep})
    small = cut(dense, graph, plan)
    x = torch.cat([inputs for inputs, _ in batches[:-1]])
    target = dense.norm(dense.first(x))[:, keep]
    plain = copy.deepcopy(small.norm)
    nn.init.ones_(plain.weight)
    if getattr(plain, "bias", None) is not None:
        nn.init.zeros_(plain.bias)
    read = plain(small.first(x)).detach()
    (line,) = rescale_statistics(dense, small, graph, plan, batches, fit=EXACT)
    assert (line.weight, line.reason) == ("norm.weight", "")
    for channel in range(len(keep)):
        columns = [read[:, channel]] + ([torch.ones(len(x)).double()] if hasattr(plain, "bias") else [])
        solution = torch.linalg.lstsq(torch.stack(columns, 1), target[:, channel].detach()).solution
        assert small.norm.weight[channel].item() == pytest.approx(solution[0].item(), rel=1e-6)
        if len(columns) > 1:
            assert small.norm.bias[channel].item() == pytest.approx(solution[1].item(), rel=1e-6)


# ---- batch norm -----------------------------------------------------------------------------------------------------


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.bn1, self.drop = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.two, self.bn2 = nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5, momentum=None)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.two(self.drop(self.bn1(self.one(x)).relu())))


def test_batch_norm_statistics_are_those_of_brute_force():
    model, batches = prepared(Normed(), (6, 3, 8, 8), count=3)
    model.train()
    model.drop.eval()
    modes = [module.training for module in model.modules()]

    def moments(x: Tensor) -> tuple[Tensor, Tensor]:
        flat = x.movedim(1, 0).flatten(1)
        return flat.mean(1), ((flat - flat.mean(1, keepdim=True)) ** 2).sum(1) / (flat.shape[1] - 1)

    first, second = [], []
    with torch.no_grad():
        for x, _ in batches:
            one = model.one(x)
            first.append(moments(one))
            centred = one - one.mean((0, 2, 3), keepdim=True)
            scale = (centred.square().mean((0, 2, 3), keepdim=True) + model.bn1.eps).rsqrt()
            weight, bias = (t.reshape(1, -1, 1, 1) for t in (model.bn1.weight, model.bn1.bias))
            second.append(moments(model.two((centred * scale * weight + bias).relu())))
    assert reestimate_batch_norm(model, batches) == 2
    for norm, found in ((model.bn1, first), (model.bn2, second)):
        torch.testing.assert_close(norm.running_mean, sum(mean for mean, _ in found) / 3)
        torch.testing.assert_close(norm.running_var, sum(variance for _, variance in found) / 3)
    assert [module.training for module in model.modules()] == modes
    assert (model.bn1.momentum, model.bn2.momentum) == (0.1, None)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "no batches"),
        ([(torch.full((2, 3, 8, 8), torch.nan).double(), None)], "'bn1' are not finite"),
        ([(torch.zeros(1, 3, 5, 5).double(), None)], "more than 1 value per channel"),
    ],
)
def test_batch_norm_is_as_it_was_after_an_error(batches, message):
    model, _ = prepared(Normed(), (2, 3, 8, 8))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ModelError, match=message):
        reestimate_batch_norm(model, batches)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.bn1.momentum == 0.1 and not model.bn1.training


def test_a_model_without_batch_norm_needs_no_batches():
    assert reestimate_batch_norm(nn.Linear(2, 2), []) == 0
