"""scikit-learn's handwritten digits: 1,797 grey images of 8x8.

Source: Alpaydin and Kaynak, UCI repository, 1998 (the test part of "optical recognition of handwritten digits").
"""

from pathlib import Path

import torch
from torch import Tensor

from ...core import FileError
from ..normalise import Normalise
from ..splits import Split, Splits

NORMALISE = Normalise((0.305,), (0.376,))  # of the training split
_MAXIMUM = 16


def read(path: Path, image_size: int | None) -> Splits:
    """Return train, validation (a tenth) and test (a fifth)."""
    from sklearn.datasets import load_digits

    if image_size not in (None, 8):
        raise FileError(f"digits are 8x8; image_size={image_size} does not apply")
    data, target = load_digits(return_X_y=True)
    images: Tensor = torch.from_numpy(data).float().view(-1, 1, 8, 8) / _MAXIMUM
    train, validation, test = Split(images, torch.from_numpy(target), (1, 8, 8)).divide(0.1, 0.2)
    return Splits(train=train, validation=validation, test=test, class_names=tuple("0123456789"))
