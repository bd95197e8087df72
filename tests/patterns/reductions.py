"""Reductions over channels (statistics, sums, what needs every channel) and over everything else."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Net, Pattern, image, tokens


def gated_by(reduce: Callable[[Tensor], Tensor]) -> nn.Module:
    """Hidden units gated, token by token, by something computed from another layer's channels."""

    def run(net: Net, x: Tensor) -> Tensor:
        return net.head((net.body(x) * reduce(net.stem(x)).to(x.dtype)).relu())

    return Net(run, stem=nn.Linear(4, 8), body=nn.Linear(4, 6), head=nn.Linear(6, 4))


def statistics(y: Tensor) -> Tensor:
    low, high = torch.aminmax(y, dim=-1, keepdim=True)
    spread, middle = torch.std_mean(y, -1, keepdim=True)
    wide, _ = torch.var_mean(y, -1, correction=0, keepdim=True)
    largest = y.max(-1, keepdim=True)[0] + y.min(dim=-1, keepdim=True).values
    return low * high + spread + middle + wide + largest + y.logsumexp(-1, keepdim=True)


def sums(y: Tensor) -> Tensor:
    norms = sum(torch.linalg.vector_norm(y, order, dim=-1, keepdim=True) for order in (1, 2, 3, float("inf")))
    active = (y > 0.1).sum(-1, keepdim=True) + (y.relu() > 0.2).count_nonzero(-1)[..., None]
    return norms + active + y.square().nansum(-1, keepdim=True).sqrt() + F.normalize(y, dim=-1).sum(-1, keepdim=True)


def whole(y: Tensor) -> Tensor:
    """Each of these needs every channel."""
    order = y.median(-1, keepdim=True)[0] + y.kthvalue(2, -1, keepdim=True)[0] + y.prod(-1, keepdim=True)
    running = y.cumprod(-1) + y.cummax(-1)[0] + y.logcumsumexp(-1)
    return order + (y > 0).any(-1, keepdim=True) + y.argmax(-1, keepdim=True) + running.sum(-1, keepdim=True)


def smallest(y: Tensor) -> Tensor:
    """A norm of negative order: a removed zero would be the smallest entry."""
    return torch.linalg.vector_norm(y, float("-inf"), dim=-1, keepdim=True)


def routed(net: Net, x: Tensor) -> Tensor:
    """The largest gate's number is used, so the gates must stay; their layer's input need not."""
    x = net.stem(x)
    weight, place = net.gate(x).softmax(-1).max(-1)
    return net.head(x * weight[..., None] + net.table(place))


def over_tokens(net: Net, x: Tensor) -> Tensor:
    """Every reduction and running value along tokens, channel by channel."""
    y = net.one(x)
    one = y.max(1)[0] + y.median(1)[0] + y.kthvalue(2, 1)[0] + y.nanmedian(1)[0] + y.aminmax(dim=1)[0] + y.prod(1)
    counts = y.argmax(1) + (y > 0).any(1) + (y > 0).count_nonzero(1) + torch.bucketize(y, net.edges).sum(1)
    runs = y.cumprod(1) + y.cummax(1)[0] + y.cummin(1)[0] + y.logcumsumexp(1) + y.sort(1)[0] + y.diff(dim=1, n=1).sum()
    return net.head(net.two(runs + (one + counts)[:, None]).relu())


def channel_attention(net: Net, x: Tensor) -> Tensor:
    """CBAM: one gate a channel from pooled maps, then one a position from the mean and maximum over channels."""
    y = net.one(x)
    pooled = (net.excite(net.squeeze(p).relu()) for p in (y.mean((2, 3), keepdim=True), y.amax((2, 3), keepdim=True)))
    y = y * sum(pooled).sigmoid()
    seen = torch.cat([torch.max(y, 1)[0].unsqueeze(1), torch.mean(y, 1).unsqueeze(1)], dim=1)
    return net.two(y * net.gate(seen).sigmoid())


def relation_of_channels(net: Net, x: Tensor) -> Tensor:
    """DANet: attention between channels, from the largest similarity down."""
    y = net.one(x)
    flat = y.flatten(2)
    energy = flat @ flat.mT
    energy = torch.max(energy, -1, keepdim=True)[0].expand_as(energy) - energy
    return net.two((energy.softmax(-1) @ flat).view_as(y) + y)


def feature_losses(net: Net, x: Tensor) -> tuple[Tensor, ...]:
    """A network that returns its losses: means are statistics over the features, a sum is not."""
    a, b = net.one(x).sigmoid(), net.two(x).sigmoid()
    losses = (F.mse_loss(a, b), F.smooth_l1_loss(a, b), F.binary_cross_entropy(a, b.detach()))
    return net.head(a), *losses, F.huber_loss(a, b, reduction="sum")


def quantised(net: Net, x: Tensor) -> Tensor:
    """Fake-quantised activations (one scale) and weights (one a row)."""
    y = torch.fake_quantize_per_tensor_affine(net.one(x), 0.05, 0, -128, 127)
    weight = torch.fake_quantize_per_channel_affine(net.weight, net.scale, net.zero, 0, -128, 127)
    return net.head(F.linear(y, weight).relu())


def quantised_net() -> nn.Module:
    net = Net(quantised, one=nn.Linear(4, 8), weight=nn.Parameter(torch.randn(6, 8)), head=nn.Linear(6, 4))
    net.scale, net.zero = torch.linspace(0.01, 0.03, 6), torch.zeros(6, dtype=torch.int32)  # plain tensors stay float32
    return net


def observed() -> nn.Module:
    """PyTorch's own quantisation-aware layer, which watches the range of what passes."""
    watch = torch.ao.quantization.FakeQuantize.with_args(quant_min=0, quant_max=255)
    return nn.Sequential(nn.Linear(4, 8), watch(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))


def two_layers(run: Callable) -> nn.Module:
    return Net(run, one=nn.Linear(4, 8), two=nn.Linear(8, 6), head=nn.Linear(6, 4), edges=torch.tensor([-0.5, 0.5]))


PATTERNS = [
    Pattern(
        name="statistics_of_channels", make=lambda: gated_by(statistics), example=tokens(4, 4), expect=2, zero_ok=False
    ),
    Pattern(name="sums_of_channels", make=lambda: gated_by(sums), example=tokens(4, 4), expect=2),
    Pattern(name="order_of_channels", make=lambda: gated_by(whole), example=tokens(4, 4), expect=1),
    Pattern(name="smallest_channel", make=lambda: gated_by(smallest), example=tokens(4, 4), expect=1),
    Pattern(
        name="maximum_with_place",
        make=lambda: Net(
            routed, stem=nn.Linear(4, 8), gate=nn.Linear(8, 5), table=nn.Embedding(5, 8), head=nn.Linear(8, 4)
        ),
        example=tokens(4, 4),
        expect=1,
    ),
    Pattern(name="reductions_of_tokens", make=lambda: two_layers(over_tokens), example=tokens(4, 4), expect=1),
    Pattern(
        name="channel_and_spatial_gate",
        make=lambda: Net(
            channel_attention,
            one=nn.Conv2d(3, 8, 1),
            squeeze=nn.Conv2d(8, 4, 1, bias=False),
            excite=nn.Conv2d(4, 8, 1, bias=False),
            gate=nn.Conv2d(2, 1, 3, padding=1),
            two=nn.Conv2d(8, 4, 1),
        ),
        example=image(),
        expect=2,
        zero_ok=False,
    ),
    Pattern(
        name="relation_of_channels",
        make=lambda: Net(relation_of_channels, one=nn.Conv2d(3, 8, 1), two=nn.Conv2d(8, 4, 1)),
        example=image(),
        expect=1,
        zero_ok=False,
    ),
    Pattern(
        name="feature_losses",
        make=lambda: Net(feature_losses, one=nn.Linear(4, 8), two=nn.Linear(4, 8), head=nn.Linear(8, 4)),
        example=tokens(4, 4),
        expect=1,
        zero_ok=False,
    ),
    Pattern(name="fake_quantised", make=quantised_net, example=tokens(4, 4), expect=2),
    Pattern(name="quantisation_aware", make=observed, example=tokens(4, 4), expect=2, zero_ok=False),
]
