"""I3D: Inception-V1 with every kernel inflated into time, for videos (batch, channels, frames, height, width).

    conv 7 ─ pool ─ conv 1 ─ conv 3 ─ pool ─ 2 mixed ─ pool ─ 5 mixed ─ pool ─ 2 mixed ─ mean ─ conv 1

A mixed block puts four branches side by side: 1; 1 then 3; 1 then 3; pool then 1. Module names are those of the common
PyTorch checkpoints that were trained on Kinetics, so such files fit at full width.

Source: Carreira and Zisserman, Quo Vadis, Action Recognition?, CVPR 2017, arXiv:1705.07750, section 2.4 and figure 3.
Differs: (1) one mean over all that is left of space and time, where the original averages windows of 2x7x7 and then
their answers over time: the same up to the weight of the first and the last frames, and any size of video goes; (2) a
width, and any number of channels in the video.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_MIXED = {  # channels of the branches: 1; 1 then 3; 1 then 3; after the pool
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


def _padded(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Pad with zeros so that the output has ceil(input / stride) places, the odd zero at the end, as in TensorFlow."""
    pads: list[int] = []
    for size, k, s in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        total = max(k - (s if size % s == 0 else size % s), 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads) if any(pads) else x


class _Unit(nn.Module):
    """Convolution, batch norm and ReLU; or the convolution alone, with a bias."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, last: bool = False) -> None:
        super().__init__()
        self.kernel, self.stride = (kernel, kernel, kernel), (stride, stride, stride)
        self.conv3d = nn.Conv3d(inputs, outputs, self.kernel, self.stride, bias=last)
        self.bn = None if last else nn.BatchNorm3d(outputs, eps=0.001, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv3d(_padded(x, self.kernel, self.stride))
        return x if self.bn is None else functional.relu(self.bn(x))


class _Pool(nn.Module):
    """The largest value of a window; zeros around are no matter after a ReLU."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return functional.max_pool3d(_padded(x, self.kernel, self.stride), self.kernel, self.stride)


class _Mixed(nn.Module):
    """Four branches side by side."""

    def __init__(self, inputs: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.b0 = _Unit(inputs, channels[0])
        self.b1a, self.b1b = _Unit(inputs, channels[1]), _Unit(channels[1], channels[2], 3)
        self.b2a, self.b2b = _Unit(inputs, channels[3]), _Unit(channels[3], channels[4], 3)
        self.b3a, self.b3b = _Pool((3, 3, 3), (1, 1, 1)), _Unit(inputs, channels[5])

    def forward(self, x: Tensor) -> Tensor:
        branches = self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))
        return torch.cat(branches, dim=1)


class I3D(nn.Module):
    """The network.

    Args:
        classes: outputs.
        width: factor on all channels.
        channels: of the video: 3 for colour, 2 for optical flow, 1 for grey.
        dropout: before the last layer, while training.
    """

    def __init__(self, classes: int = 400, width: float = 1.0, channels: int = 3, dropout: float = 0.5) -> None:
        super().__init__()

        def wide(count: int) -> int:
            return max(1, round(count * width))

        self.Conv3d_1a_7x7 = _Unit(channels, wide(64), 7, 2)
        self.MaxPool3d_2a_3x3 = _Pool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = _Unit(wide(64), wide(64))
        self.Conv3d_2c_3x3 = _Unit(wide(64), wide(192), 3)
        self.MaxPool3d_3a_3x3 = _Pool((1, 3, 3), (1, 2, 2))
        inputs = wide(192)
        for name, counts in _MIXED.items():
            if name == "Mixed_4b":
                self.MaxPool3d_4a_3x3 = _Pool((3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                self.MaxPool3d_5a_2x2 = _Pool((2, 2, 2), (2, 2, 2))
            branches = [wide(count) for count in counts]
            self.add_module(name, _Mixed(inputs, branches))
            inputs = branches[0] + branches[2] + branches[4] + branches[5]
        self.dropout = nn.Dropout(dropout)
        self.logits = _Unit(inputs, classes, last=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map videos (batch, channels, frames, height, width) to logits (batch, classes)."""
        for name, module in self.named_children():
            if name not in ("dropout", "logits"):
                x = module(x)
        x = functional.adaptive_avg_pool3d(x, 1)
        return self.logits(self.dropout(x)).flatten(1)


def i3d(classes: int = 400) -> I3D:
    """Build the network for colour videos at full width: 12.7 M parameters."""
    return I3D(classes)


def i3d_narrow(classes: int = 10) -> I3D:
    """Build an eighth of its width for small grey videos, without dropout: made to be trained in minutes on a CPU."""
    return I3D(classes, width=1 / 8, channels=1, dropout=0.0)
