"""Fourier transforms, complex numbers, sampling at computed places, and kernels made by the network itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Net, Pattern, image, tokens


def global_filter(net: Net, x: Tensor) -> Tensor:
    """A learned complex filter over the frequencies of every channel."""
    spectrum = torch.fft.rfft2(net.one(x), norm="ortho") * torch.view_as_complex(net.filter)
    return net.head(torch.fft.irfft2(spectrum, s=x.shape[-2:], norm="ortho").relu())


def neural_operator(net: Net, x: Tensor) -> Tensor:
    """FNO: the lowest frequencies of all channels mixed by a complex matrix each, into a tensor of zeros."""
    y = net.one(x)
    spectrum = torch.fft.rfft2(y)
    out = torch.zeros(x.shape[0], net.width, *spectrum.shape[-2:], dtype=spectrum.dtype)
    weight = torch.complex(net.real, net.imaginary)
    out[..., :3, :3] = torch.einsum("bixy,ioxy->boxy", spectrum[..., :3, :3], weight)
    return net.head((torch.fft.irfft2(out, s=x.shape[-2:]) + net.two(y)).relu())


def over_tokens(net: Net, x: Tensor) -> Tensor:
    """Amplitudes and phases along tokens, read side by side; the average amplitude over channels gates them."""
    spectrum = torch.fft.rfft(net.one(x), dim=1)
    both = torch.cat([spectrum.abs(), spectrum.angle()], -1)
    return net.head(both) * spectrum.abs().mean(-1, keepdim=True)


def mixed_channels(net: Net, x: Tensor) -> Tensor:
    """FNet: the transform mixes channels too, so they must stay; hidden units need not."""
    x = net.one(x)
    x = net.norm(x + torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2).real)
    return net.head(x + net.down(net.up(x).relu()))


def spectrogram(net: Net, x: Tensor) -> Tensor:
    window = torch.hann_window(6, dtype=x.dtype)
    y = torch.stft(x, 6, 2, window=window, return_complex=True).abs()
    mask = torch.complex(net.real(net.one(y).relu()), net.imaginary(net.one(y).relu()))
    return torch.istft(mask, 6, 2, window=window)


def spatial_transformer(net: Net, x: Tensor) -> Tensor:
    """A small network says where to look; the features are sampled there."""
    y = net.one(x)
    theta = net.localise(y.mean((2, 3))).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(y.shape), align_corners=False)
    return net.head(F.grid_sample(y, grid, align_corners=False).relu())


def flow_warp(net: Net, x: Tensor) -> Tensor:
    """Features moved along a flow that is predicted from them."""
    y = net.one(x)
    _, _, height, width = y.size()
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = torch.stack((columns, rows), 2)[None] + net.flow(y).permute(0, 2, 3, 1)
    return net.head(F.grid_sample(y, 2 * grid / max(width - 1, 1) - 1, align_corners=True))


def involution(net: Net, x: Tensor) -> Tensor:
    """A kernel a position and group, from the features themselves."""
    y = net.one(x)
    batch, channels, height, width = y.shape
    kernel = net.span(net.reduce(y).relu()).view(batch, net.groups, 9, height, width).unsqueeze(2)
    patches = F.unfold(y, 3, padding=1).view(batch, net.groups, channels // net.groups, 9, height, width)
    return net.head((kernel * patches).sum(3).view(batch, channels, height, width))


def modulated(net: Net, x: Tensor) -> Tensor:
    """StyleGAN2: weights scaled by a style, demodulated, one convolution group a sample."""
    y = net.one(x)
    batch, channels, height, width = y.shape
    weight = net.weight[None] * net.style(y.mean((2, 3))).view(batch, 1, channels, 1, 1)
    weight = weight * torch.rsqrt(weight.pow(2).sum([2, 3, 4]) + 1e-8).view(batch, net.out, 1, 1, 1)
    weight = weight.view(batch * net.out, channels, 3, 3)
    y = F.conv2d(y.reshape(1, -1, height, width), weight, padding=1, groups=batch)
    return net.head(F.leaky_relu(y.view(batch, net.out, height, width), 0.2))


def conditional(net: Net, x: Tensor) -> Tensor:
    """timm's CondConv: a bank of kernels as one matrix, mixed for every sample."""
    y = net.one(x).relu()
    batch, channels, height, width = y.shape
    kernels = torch.sigmoid(net.route(F.adaptive_avg_pool2d(y, 1).flatten(1))) @ net.bank
    y = F.conv2d(
        y.reshape(1, batch * channels, height, width), kernels.view(batch * net.out, net.inner, 1, 1), groups=batch
    )
    return net.head(y.permute(1, 0, 2, 3).view(batch, net.out, height, width).relu())


def adaptive_norm(net: Net, x: Tensor, style: Tensor) -> Tensor:
    """AdaIN: statistics a channel and sample, over space; scale and shift from a style."""
    y = net.one(x)
    scale, shift = net.style(style)[..., None, None].chunk(2, 1)
    y = (y - y.mean((2, 3), keepdim=True)) / (y.std((2, 3), keepdim=True) + 1e-5)
    return net.head((1 + scale) * y + shift)


def batch_deviation(net: Net, x: Tensor) -> Tensor:
    """StyleGAN's minibatch deviation: one more channel, with a mean over all others."""
    y = net.one(x)
    spread = (y.var(0, unbiased=False) + 1e-8).sqrt().mean((0, 1, 2)).expand(len(y), 1, *y.shape[2:])
    return net.head(torch.cat([y, spread], 1).relu())


PATTERNS = [
    Pattern(
        name="global_filter",
        make=lambda: Net(
            global_filter, one=nn.Conv2d(3, 8, 1), filter=nn.Parameter(torch.randn(8, 8, 5, 2)), head=nn.Conv2d(8, 4, 1)
        ),
        example=image(),
        expect=1,
    ),
    Pattern(
        name="neural_operator",
        make=lambda: Net(
            neural_operator,
            width=6,
            one=nn.Conv2d(3, 8, 1),
            two=nn.Conv2d(8, 6, 1),
            real=nn.Parameter(torch.randn(8, 6, 3, 3)),
            imaginary=nn.Parameter(torch.randn(8, 6, 3, 3)),
            head=nn.Conv2d(6, 4, 1),
        ),
        example=image(),
        expect=2,
    ),
    Pattern(
        name="spectrum_of_tokens",
        make=lambda: Net(over_tokens, one=nn.Linear(4, 8), head=nn.Linear(16, 4)),
        example=tokens(4, 4),
        expect=1,
        zero_ok=False,
    ),
    Pattern(
        name="fourier_mixer",
        make=lambda: Net(
            mixed_channels,
            one=nn.Linear(4, 8),
            norm=nn.LayerNorm(8),
            up=nn.Linear(8, 12),
            down=nn.Linear(12, 8),
            head=nn.Linear(8, 4),
        ),
        example=tokens(4, 4),
        expect=1,
    ),
    Pattern(
        name="spectrogram",
        make=lambda: Net(
            spectrogram,
            one=nn.Conv1d(4, 8, 3, padding=1),
            real=nn.Conv1d(8, 4, 1),
            imaginary=nn.Conv1d(8, 4, 1),
        ),
        example=lambda: torch.randn(2, 16),
        expect=1,
    ),
    Pattern(
        name="spatial_transformer",
        make=lambda: Net(
            spatial_transformer,
            one=nn.Conv2d(3, 8, 1),
            localise=nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 6)),
            head=nn.Conv2d(8, 4, 1),
        ),
        example=image(),
        expect=2,
    ),
    Pattern(
        name="flow_warp",
        make=lambda: Net(
            flow_warp, one=nn.Conv2d(3, 8, 1), flow=nn.Conv2d(8, 2, 3, padding=1), head=nn.Conv2d(8, 4, 1)
        ),
        example=image(),
        expect=1,
    ),
    Pattern(
        name="involution",
        make=lambda: Net(
            involution,
            groups=2,
            one=nn.Conv2d(3, 8, 1),
            reduce=nn.Conv2d(8, 4, 1),
            span=nn.Conv2d(4, 18, 1),
            head=nn.Conv2d(8, 4, 1),
        ),
        example=image(),
        expect=3,
    ),
    Pattern(
        name="modulated_kernel",
        make=lambda: Net(
            modulated,
            out=6,
            one=nn.Conv2d(3, 8, 1),
            style=nn.Linear(8, 8),
            weight=nn.Parameter(torch.randn(6, 8, 3, 3)),
            head=nn.Conv2d(6, 4, 1),
        ),
        example=image(),
        expect=2,
    ),
    Pattern(
        name="conditional_kernel",
        make=lambda: Net(
            conditional,
            inner=8,
            out=6,
            one=nn.Conv2d(3, 8, 1),
            route=nn.Linear(8, 2),
            bank=nn.Parameter(torch.randn(2, 48)),
            head=nn.Conv2d(6, 4, 1),
        ),
        example=image(),
        expect=2,
    ),
    Pattern(
        name="adaptive_instance_norm",
        make=lambda: Net(adaptive_norm, one=nn.Conv2d(3, 8, 1), style=nn.Linear(4, 16), head=nn.Conv2d(8, 4, 1)),
        example=lambda: (torch.randn(2, 3, 8, 8), torch.randn(2, 4)),
        expect=1,
    ),
    Pattern(
        name="batch_deviation",
        make=lambda: Net(batch_deviation, one=nn.Conv2d(3, 8, 1), head=nn.Conv2d(9, 4, 1)),
        example=image(),
        expect=1,
        zero_ok=False,
    ),
]
