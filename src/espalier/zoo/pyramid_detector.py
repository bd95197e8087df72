"""A small one-stage detector: a backbone, a feature pyramid, and heads that all its levels share.

    image ─▶ 1/4 ─▶ 1/8 ─▶ 1/16                   backbone: a residual block a level
              │      │       │
             1x1 + ◀ 1x1 + ◀ 1x1                  pyramid: sideways 1x1, from above enlarged, 3x3
              └──────┴───────┴─▶ class head, box head ─▶ (batch, classes + 4, positions of all levels)

Source: Lin et al., Feature Pyramid Networks, CVPR 2017, arXiv:1612.03144; heads without anchors as in Tian et al.,
FCOS, ICCV 2019, arXiv:1904.01355, section 3.
Differs: (1) three levels at strides 4, 8 and 16, one convolution a head, no centre-ness.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_PRIOR = 0.01  # of a position being an object, before training


class _Block(nn.Module):
    """relu(shortcut(x) + conv(relu(conv(x)))), at half the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 2, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, 2, bias=False)
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(outputs) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(out + self.bn3(self.shortcut(x)))


class PyramidDetector(nn.Module):
    """The detector.

    Args:
        classes: of objects.
        width: channels of the stem; the levels have two, four and eight times as many, the pyramid twice.
        channels: of the image.
    """

    def __init__(self, classes: int = 10, width: int = 16, channels: int = 1) -> None:
        super().__init__()
        widths = [2 * width, 4 * width, 8 * width]
        pyramid = 2 * width
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, 2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.levels = nn.ModuleList(_Block(a, b) for a, b in zip([width, *widths[:-1]], widths, strict=True))
        self.sideways = nn.ModuleList(nn.Conv2d(one, pyramid, 1) for one in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(pyramid, pyramid, 3, padding=1) for _ in widths)
        self.class_tower = nn.Conv2d(pyramid, pyramid, 3, padding=1)
        self.box_tower = nn.Conv2d(pyramid, pyramid, 3, padding=1)
        self.class_head = nn.Conv2d(pyramid, classes, 3, padding=1)
        self.box_head = nn.Conv2d(pyramid, 4, 3, padding=1)
        nn.init.constant_(self.class_head.bias, -math.log((1 - _PRIOR) / _PRIOR))  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, channels, height, width) to (batch, classes + 4, positions).

        The first numbers of a position are class logits, the last four the logarithms of the distances, in strides,
        to the left, upper, right and lower edge of the object. Positions: stride 4 row by row, then 8, then 16.
        """
        x = self.stem(x)
        found = []
        for level in self.levels:
            x = level(x)
            found.append(x)
        above = self.sideways[2](found[2])
        pyramid = [above]
        for number in (1, 0):
            here = self.sideways[number](found[number])
            above = here + functional.interpolate(above, size=here.shape[-2:])
            pyramid.insert(0, above)
        outputs = [self._heads(smooth(one)) for smooth, one in zip(self.smooth, pyramid, strict=True)]
        return torch.cat([one.flatten(2) for one in outputs], 2)

    def _heads(self, x: Tensor) -> Tensor:
        classes = self.class_head(functional.relu(self.class_tower(x)))
        return torch.cat([classes, self.box_head(functional.relu(self.box_tower(x)))], 1)


def pyramid_detector(classes: int = 10) -> PyramidDetector:
    """Build the detector for grey images of 64x64: 0.36 M parameters, 22 M MACs."""
    return PyramidDetector(classes)
