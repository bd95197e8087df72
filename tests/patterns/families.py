"""Whole families in a few lines: generative models, fields, capsules, splines, fixed points, set prediction."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Net, Pattern, image, tokens


def variational(net: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    """A VAE that samples in training; its divergence is a sum over the code."""
    h = net.encode(x).relu()
    mean, spread = net.mean(h), net.spread(h)
    code = mean + torch.randn_like(mean) * torch.exp(0.5 * spread) if net.training else mean
    return net.decode(net.body(code).relu()), (1 + spread - mean.pow(2) - spread.exp()).sum(-1)


def codebook(net: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    """A VQ-VAE: the nearest code by expanded squares, straight through; the commitment is a mean."""
    z = net.encode(x)
    flat = z.reshape(-1, z.shape[-1])
    away = flat.pow(2).sum(1, keepdim=True) + net.codes.weight.pow(2).sum(1) - 2 * flat @ net.codes.weight.t()
    code = net.codes(away.argmin(1)).view_as(z)
    return net.decode(z + (code - z).detach()), F.mse_loss(code, z)


def coupling(net: Net, x: Tensor) -> Tensor:
    """Affine couplings: half the channels scale and shift the other half."""
    y = net.enter(x)
    u, v = y[..., : net.half], y[..., net.half :]
    both = net.two(net.one(u).relu())
    v = v * torch.exp(both[..., : net.half].tanh()) + both[..., net.half :]
    return net.leave(torch.cat([v, u], -1))


def radiance(net: Net, x: Tensor) -> Tensor:
    """NeRF: frequencies of a place, a layer that sees them again, an output for density and one for colour."""
    place = torch.cat([x, *(f(x * 2.0**i) for i in range(2) for f in (torch.sin, torch.cos))], -1)
    h = place
    for i, layer in enumerate(net.layers):
        h = layer(h).relu()
        h = torch.cat([place, h], -1) if i in net.skips else h
    return torch.cat([net.colour(net.view(torch.cat([net.feature(h), x], -1)).relu()), net.density(h)], -1)


def routed(net: Net, x: Tensor) -> Tensor:
    """Capsules: votes agree in two rounds; a vector's length is the answer."""
    u = net.one(x).view(len(x), net.kinds, net.width, -1).transpose(2, 3).flatten(1, 2)
    votes = torch.einsum("bnd,nodk->bnok", u, net.votes)
    logits = torch.zeros(*votes.shape[:3], 1, dtype=x.dtype)
    for _ in range(2):
        total = (logits.softmax(2) * votes).sum(1, keepdim=True)
        length = total.pow(2).sum(-1, keepdim=True)
        total = length / (1 + length) * total / (length.sqrt() + 1e-8)
        logits = logits + (votes * total).sum(-1, keepdim=True)
    return total.squeeze(1).norm(dim=-1)


def splines(net: Net, x: Tensor) -> Tensor:
    """KAN: every edge a spline on a grid of its input, plus a base layer."""
    y, grid = net.stem(x).flatten(0, 1), net.grid
    at = y.unsqueeze(-1)
    basis = ((at >= grid[:, :-1]) & (at < grid[:, 1:])).to(y.dtype)
    for k in (1, 2):
        left = (at - grid[:, : -(k + 1)]) / (grid[:, k:-1] - grid[:, : -(k + 1)])
        right = (grid[:, k + 1 :] - at) / (grid[:, k + 1 :] - grid[:, 1:-k])
        basis = left * basis[..., :-1] + right * basis[..., 1:]
    edges = F.linear(basis.view(y.size(0), -1), net.edges.view(net.out, -1))
    return net.head(F.linear(F.silu(y), net.base) + edges)


def radial(net: Net, x: Tensor) -> Tensor:
    """KAN with radial functions: one einsum over inputs and grid points."""
    y = net.stem(x)
    basis = torch.exp(-(((y[..., None] - net.grid) / 0.5) ** 2))
    return net.head(torch.einsum("bnig,iog->bno", basis, net.edges) + F.linear(F.silu(y), net.base))


def integrated(net: Net, x: Tensor) -> Tensor:
    """A neural ODE in fixed steps, time as one more channel; then a fixed point, iterated."""
    y, step = net.stem(x), 1 / net.steps
    for i in range(net.steps):
        half = y + step / 2 * net.field(torch.cat([y, torch.full_like(y[..., :1], i * step)], -1))
        y = y + step * net.field(torch.cat([half, torch.full_like(y[..., :1], (i + 0.5) * step)], -1))
    z = torch.zeros_like(y)
    for _ in range(3):
        z = torch.tanh(net.cell(z) + y)
    return net.head(z)


def tied_code(net: Net, x: Tensor) -> Tensor:
    """An autoencoder whose decoder reads the encoder's matrices the other way."""
    y = F.linear(F.linear(x, net.one, net.one_bias).relu(), net.two, net.two_bias).relu()
    return F.linear((y @ net.two).relu(), net.one.t())


def retrieved(net: Net, x: Tensor) -> Tensor:
    """A Hopfield memory, a mixture of softmaxes over the same table, and a highway in between."""
    y = net.stem(x)
    for _ in range(2):
        y = torch.softmax(0.5 * y @ net.memory.T, -1) @ net.memory
    carry = net.carry(y).sigmoid()
    y = carry * net.change(y).relu() + (1 - carry) * y
    views = torch.tanh(net.views(y)).view(*y.shape[:2], net.kinds, -1)
    return (F.linear(views, net.memory).softmax(-1) * net.prior(y).softmax(-1).unsqueeze(-1)).sum(2).log()


def units(net: Net, x: Tensor) -> Tensor:
    """Maxout over neighbours, the maximum of two halves, and a rectifier of both signs."""
    y = net.one(x)
    y = y.view(y.size(0), y.size(1) // 2, 2, *y.shape[2:]).max(2).values
    a, b = torch.split(net.two(y), net.half, 1)
    y = torch.max(a, b)
    return net.head(torch.cat([y, -y], 1).relu())


def queried(net: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mask2Former: queries attend where their own masks are, and give classes and masks by einsum."""
    y = net.one(x).relu()
    places, keys, values = net.places(y), net.keys(y).flatten(2).mT, net.values(y).flatten(2).mT
    query = net.query.weight.unsqueeze(0).expand(len(x), -1, -1)
    hidden = torch.einsum("bqc,bchw->bqhw", net.mask(query), places).sigmoid().flatten(2) < 0.5
    hidden[hidden.all(-1)] = False
    scores = torch.einsum("bqc,bkc->bqk", net.ask(query), keys).masked_fill(hidden, -1e9)
    query = net.norm(query + scores.softmax(-1) @ values)
    return net.kind(query), torch.einsum("bqc,bchw->bqhw", net.mask(query), places)


def table(*sizes: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*sizes))


def lin(a: int, b: int) -> nn.Module:
    return nn.Linear(a, b)


def grid_of(count: int) -> Tensor:
    return torch.linspace(-2, 2, count)


MAKERS = {
    # name: (maker, example, groups that a good engine finds, zeros are the same function)
    "variational": (
        lambda: Net(variational, encode=lin(4, 8), mean=lin(8, 3), spread=lin(8, 3), body=lin(3, 8), decode=lin(8, 4)),
        tokens(4, 4),
        3,
        False,
    ),
    "codebook": (
        lambda: Net(codebook, encode=lin(4, 8), codes=nn.Embedding(6, 8), decode=lin(8, 4)),
        tokens(4, 4),
        1,
        False,
    ),
    "coupling": (
        lambda: Net(coupling, half=4, enter=lin(4, 8), one=lin(4, 6), two=lin(6, 8), leave=lin(8, 4)),
        tokens(4, 4),
        2,
        True,
    ),
    "radiance": (
        lambda: Net(
            radiance,
            skips=[1],
            layers=nn.ModuleList([lin(15, 8), lin(8, 8), lin(23, 8)]),
            density=lin(8, 1),
            feature=lin(8, 8),
            view=lin(11, 6),
            colour=lin(6, 3),
        ),
        lambda: torch.randn(5, 3),
        4,
        True,
    ),
    "capsules": (
        lambda: Net(routed, kinds=2, width=4, one=nn.Conv2d(3, 8, 1), votes=table(128, 3, 4, 5)),
        image(),
        2,
        True,
    ),
    "splines": (
        lambda: Net(
            splines,
            out=6,
            stem=lin(4, 8),
            grid=nn.Buffer(grid_of(9).expand(8, -1).contiguous()),
            edges=table(6, 8, 6),
            base=table(6, 8),
            head=lin(6, 4),
        ),
        tokens(4, 4),
        2,
        False,
    ),
    "radial_splines": (
        lambda: Net(
            radial, stem=lin(4, 8), grid=nn.Buffer(grid_of(5)), edges=table(8, 6, 5), base=table(6, 8), head=lin(6, 4)
        ),
        tokens(4, 4),
        2,
        True,
    ),
    "integrated": (
        lambda: Net(
            integrated,
            steps=2,
            stem=lin(4, 8),
            field=nn.Sequential(lin(9, 12), nn.Tanh(), lin(12, 8)),
            cell=lin(8, 8),
            head=lin(8, 4),
        ),
        tokens(4, 4),
        2,
        True,
    ),
    "tied_code": (
        lambda: Net(tied_code, one=table(8, 4), one_bias=table(8), two=table(6, 8), two_bias=table(6)),
        tokens(4, 4),
        2,
        True,
    ),
    "retrieved": (
        lambda: Net(
            retrieved,
            kinds=3,
            stem=lin(4, 8),
            memory=table(5, 8),
            carry=lin(8, 8),
            change=lin(8, 8),
            views=lin(8, 24),
            prior=lin(8, 3),
        ),
        tokens(4, 4),
        1,
        False,
    ),
    "paired_units": (
        lambda: Net(units, half=6, one=nn.Conv2d(3, 16, 1), two=nn.Conv2d(8, 12, 1), head=nn.Conv2d(12, 4, 1)),
        image(),
        2,
        True,
    ),
    "mask_queries": (
        lambda: Net(
            queried,
            one=nn.Conv2d(3, 6, 1),
            places=nn.Conv2d(6, 5, 1),
            keys=nn.Conv2d(6, 8, 1),
            values=nn.Conv2d(6, 8, 1),
            query=nn.Embedding(3, 8),
            ask=lin(8, 8),
            mask=lin(8, 5),
            norm=nn.LayerNorm(8),
            kind=lin(8, 4),
        ),
        image(),
        4,
        True,
    ),
}

PATTERNS = [
    Pattern(
        name=name,
        make=make,
        example=example,
        expect=expect,
        zero_ok=zero_ok,
        unmaskable="a grid of zeros divides by its spacing" if name == "splines" else "",
    )
    for name, (make, example, expect, zero_ok) in MAKERS.items()
]
