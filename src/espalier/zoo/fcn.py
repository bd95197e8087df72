"""FCN-8s: a convolutional encoder whose scores at three strides are added up on the way back to the image's size.

    image ─▶ stage 1 ─▶ 2 ─▶ stage 3 (1/8) ─▶ stage 4 (1/16) ─▶ stage 5 (1/32) ─▶ 1x1 ─▶ scores
                                 │                 │                                       │
                                 └────── 1x1 ──────┼─────────── 1x1 ──────▶ + ◀── x2 ──────┘
                                                   scores ──▶ + ◀── x2 ─────┘ ──▶ image's size

Source: Long, Shelhamer and Darrell, Fully Convolutional Networks for Semantic Segmentation, CVPR 2015,
arXiv:1411.4038, section 4.
Differs: (1) batch norm after every convolution of the encoder, which is trained from scratch; (2) one 3x3 convolution
at stride 32 in place of the two fully connected layers; (3) scores are enlarged bilinearly, by no learned kernels;
(4) all widths may be scaled.
"""

from torch import Tensor, nn
from torch.nn import functional

_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
_BOTTOM = 1024


def _stage(inputs: int, outputs: int, layers: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for number in range(layers):
        first = inputs if number == 0 else outputs
        parts += [nn.Conv2d(first, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*parts, nn.MaxPool2d(2, ceil_mode=True))


class FCN(nn.Module):
    """FCN-8s.

    Args:
        classes: of pixels.
        width: factor of all widths but the scores'.
    """

    def __init__(self, classes: int = 11, width: float = 1.0) -> None:
        super().__init__()
        widths = [int(width * channels) for channels, _ in _STAGES]
        stages = zip([3, *widths[:-1]], widths, (layers for _, layers in _STAGES), strict=True)
        self.stages = nn.ModuleList(_stage(*one) for one in stages)
        bottom = int(width * _BOTTOM)
        self.bottom = nn.Sequential(
            nn.Conv2d(widths[4], bottom, 3, padding=1, bias=False), nn.BatchNorm2d(bottom), nn.ReLU()
        )
        self.scores = nn.ModuleList(nn.Conv2d(channels, classes, 1) for channels in (widths[2], widths[3], bottom))
        for module in self.stages.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, 3, height, width) to scores (batch, classes, height, width)."""
        size = x.shape[-2:]
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        scores = self.scores[2](self.bottom(x))
        for number, skip in ((1, found[3]), (0, found[2])):
            scores = self.scores[number](skip) + _enlarged(scores, skip.shape[-2:])
        return _enlarged(scores, size)


def _enlarged(scores: Tensor, size: tuple[int, ...]) -> Tensor:
    return functional.interpolate(scores, size=size, mode="bilinear", align_corners=False)


def fcn8s(classes: int = 11) -> FCN:
    """Build the network at the width of VGG-16."""
    return FCN(classes)


def fcn8s_quarter(classes: int = 11) -> FCN:
    """Build the network at a quarter of that width: for CamVid at 240x180 on two cores."""
    return FCN(classes, 0.25)
