"""Sequence models without a recurrent layer: state spaces, time mixing, causal convolutions, positions, caches."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Net, Pattern, tokens

Heads = Callable[[Net, Tensor, Tensor, Tensor], Tensor]  # (network, q, k, v), each (batch, heads, tokens, width)


def selective_scan(net: Net, x: Tensor) -> Tensor:
    """Mamba: a gated, input-dependent state space, one step a token."""
    batch, count, _ = x.shape
    u, gate = net.enter(x).chunk(2, dim=-1)
    u = F.silu(net.conv(u.transpose(1, 2))[..., :count].transpose(1, 2))
    step, b, c = net.select(u).split([net.rank, net.state, net.state], dim=-1)
    step, a = F.softplus(net.step(step)), -torch.exp(net.a)
    h, out = torch.zeros(batch, net.inner, net.state, dtype=x.dtype), []
    for i in range(count):
        h = torch.exp(step[:, i, :, None] * a) * h + (step[:, i] * u[:, i])[..., None] * b[:, i, None, :]
        out.append(torch.einsum("bdn,bn->bd", h, c[:, i]))
    return net.leave((torch.stack(out, 1) + u * net.d) * F.silu(gate))


def state_space() -> nn.Module:
    parts = {"enter": nn.Linear(4, 16), "conv": nn.Conv1d(8, 8, 3, groups=8, padding=2), "select": nn.Linear(8, 8)}
    numbers = {"a": nn.Parameter(torch.randn(8, 3)), "d": nn.Parameter(torch.randn(8))}
    layers = {"step": nn.Linear(2, 8), "leave": nn.Linear(8, 4)}
    return Net(selective_scan, inner=8, rank=2, state=3, **parts, **numbers, **layers)


def time_mixing(net: Net, x: Tensor) -> Tensor:
    """RWKV: each token mixed with the one before it, then a weighted average that decays."""
    y = net.norm(net.stem(x))
    batch, count, width = y.size()
    before = F.pad(y, (0, 0, 1, -1))
    k, v, r = (
        layer(y * mix + before * (1 - mix))
        for layer, mix in ((net.k, net.mix[0]), (net.v, net.mix[1]), (net.r, net.mix[2]))
    )
    top, bottom, out = y.new_zeros(batch, width), y.new_zeros(batch, width), []
    decay = torch.exp(-torch.exp(net.decay))
    for i in range(count):
        now, first = torch.exp(k[:, i]), torch.exp(net.bonus + k[:, i])
        out.append((top + first * v[:, i]) / (bottom + first))
        top, bottom = decay * top + now * v[:, i], decay * bottom + now
    return net.head(net.out(r.sigmoid() * torch.stack(out, 1)))


def time_mixer() -> nn.Module:
    layers = {name: nn.Linear(8, 8, bias=False) for name in ("k", "v", "r", "out")}
    numbers = {"decay": nn.Parameter(torch.randn(8)), "bonus": nn.Parameter(torch.randn(8))}
    mix = nn.ParameterList([torch.rand(1, 1, 8) for _ in range(3)])
    ends = {"stem": nn.Linear(4, 8), "norm": nn.LayerNorm(8), "head": nn.Linear(8, 4)}
    return Net(time_mixing, mix=mix, **layers, **numbers, **ends)


def dilated(net: Net, x: Tensor) -> Tensor:
    """WaveNet: gates over dilated convolutions that shorten the sequence; skips of the last steps, added."""
    h, skips = net.stem(x), 0
    for both, back, skip in zip(net.both, net.back, net.skip, strict=True):
        a, b = both(h).chunk(2, 1)
        z = torch.tanh(a) * torch.sigmoid(b)
        skips = skips + skip(z)[..., -2:]
        h = back(z) + h[..., -z.size(2) :]
    return net.head(skips.relu())


def wavenet() -> nn.Module:
    both = nn.ModuleList(nn.Conv1d(8, 12, 2, dilation=d) for d in (1, 2))
    back, skip = (nn.ModuleList(nn.Conv1d(6, n, 1) for _ in range(2)) for n in (8, 5))
    return Net(dilated, stem=nn.Conv1d(4, 8, 1), both=both, back=back, skip=skip, head=nn.Conv1d(5, 4, 1))


def causal(net: Net, x: Tensor) -> Tensor:
    """TCN: padded on both sides, chomped on one."""
    for conv, chomp, skip in zip(net.convs, net.chomps, net.skips, strict=True):
        x = (conv(x)[:, :, :-chomp].contiguous().relu() + skip(x)).relu()
    return net.head(x)


def tcn() -> nn.Module:
    convs = nn.ModuleList(nn.Conv1d(n, 8, 3, padding=2 * d, dilation=d) for n, d in ((4, 1), (8, 2)))
    skips = nn.ModuleList([nn.Conv1d(4, 8, 1), nn.Identity()])
    return Net(causal, chomps=[2, 4], convs=convs, skips=skips, head=nn.Conv1d(8, 4, 1))


def speech(net: Net, x: Tensor) -> Tensor:
    """DeepSpeech: channels and frequencies become one; the two directions of a GRU are added."""
    y = F.hardtanh(net.norm(net.conv(x.unsqueeze(1))), 0, 20)
    batch, channels, bands, count = y.size()
    y, _ = net.layer(y.view(batch, channels * bands, count).permute(2, 0, 1).contiguous())
    return net.head(y.view(y.size(0), y.size(1), 2, -1).sum(2)).transpose(0, 1).log_softmax(-1)


def softmax(net: Net, scores: Tensor, v: Tensor) -> Tensor:
    return (scores * net.width**-0.5).softmax(-1) @ v


def shifted(net: Net, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Transformer-XL: relative positions by a shift of rows; biases a head for content and for place."""
    batch, heads, count, _ = q.shape
    place = torch.arange(count, dtype=q.dtype)[:, None] * torch.tensor([1.0, 0.5, 0.2, 0.1], dtype=q.dtype)
    place = net.place(place.sin()).view(count, heads, net.width).transpose(0, 1)
    moved = (q + net.place_bias[:, None]) @ place.mT
    moved = torch.cat([moved.new_zeros(batch, heads, count, 1), moved], -1)
    moved = moved.view(batch, heads, count + 1, count)[:, :, 1:].view(batch, heads, count, count)
    return softmax(net, (q + net.bias[:, None]) @ k.mT + moved, v)


def bucketed(net: Net, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """T5: a table a head, by distance in buckets that widen."""
    count = q.shape[2]
    away = torch.arange(count)[None] - torch.arange(count)[:, None]
    far = 2 + (torch.log(away.abs().float() / 2 + 1e-9) / math.log(4) * 2).long()
    bucket = torch.where(away.abs() < 2, away.abs(), far.clamp(max=3)) + 4 * (away > 0)
    return softmax(net, q @ k.mT + net.table(bucket).permute(2, 0, 1)[None], v)


def relative_keys(net: Net, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Shaw: a key a distance."""
    count = q.shape[2]
    distance = torch.arange(count)[None] - torch.arange(count)[:, None] + count - 1
    return softmax(net, q @ k.mT + torch.einsum("bhid,ijhd->bhij", q, net.keys[distance]), v)


def cached(net: Net, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Keys and values written into a static cache, which holds room for more."""
    keys = torch.zeros(*q.shape[:2], 6, net.width, dtype=q.dtype)
    values = torch.zeros_like(keys)
    keys[:, :, : q.shape[2]], values[:, :, : q.shape[2]] = k, v
    keys.index_copy_(2, torch.arange(q.shape[2]), k)
    return softmax(net, q @ keys.mT, values)


def sparsest(net: Net, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Only the two best keys of each query."""
    scores = q @ k.mT
    return softmax(net, scores.masked_fill(scores < scores.topk(2, -1)[0][..., -1:], -1e9), v)


def attending(core: Heads) -> Callable[[], nn.Module]:
    def run(net: Net, x: Tensor) -> Tensor:
        q, k, v = (layer(x).view(*x.shape[:2], net.heads, net.width).transpose(1, 2) for layer in (net.q, net.k, net.v))
        return net.head(core(net, q, k, v).transpose(1, 2).flatten(2))

    def make() -> nn.Module:
        layers = {name: nn.Linear(4, 8) for name in ("q", "k", "v")}
        extra = {
            shifted: {
                "place": nn.Linear(4, 8),
                "bias": nn.Parameter(torch.randn(2, 4)),
                "place_bias": nn.Parameter(torch.randn(2, 4)),
            },
            bucketed: {"table": nn.Embedding(8, 2)},
            relative_keys: {"keys": nn.Parameter(torch.randn(7, 2, 4))},
        }.get(core, {})
        return Net(run, heads=2, width=4, **layers, **extra, head=nn.Linear(8, 4))

    return make


PATTERNS = [
    Pattern(name="selective_scan", make=state_space, example=tokens(4, 4), expect=3),
    Pattern(name="time_mixing", make=time_mixer, example=tokens(4, 4), expect=2),
    Pattern(name="dilated_gates", make=wavenet, example=tokens(4, 9), expect=4),
    Pattern(name="causal_convolutions", make=tcn, example=tokens(4, 9), expect=1),
    Pattern(
        name="convolution_to_summed_gru",
        make=lambda: Net(
            speech,
            conv=nn.Conv2d(1, 4, 3, padding=1),
            norm=nn.BatchNorm2d(4),
            layer=nn.GRU(16, 6, bidirectional=True),
            head=nn.Linear(6, 5),
        ),
        example=tokens(4, 4),
        expect=2,
    ),
    *(
        Pattern(name=f"attention_{core.__name__}", make=attending(core), example=tokens(4, 4), expect=2, zero_ok=False)
        for core in (shifted, bucketed, relative_keys, cached, sparsest)
    ),
]
