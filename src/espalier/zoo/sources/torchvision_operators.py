"""Make torchvision import beside a PyTorch that its wheel was not compiled for.

The wheel on the package index is built for CUDA. Its extension needs CUDA's libraries, so beside a CPU-only PyTorch it
does not load; torchvision carries on without it, but then registers shape functions for ``torchvision::nms`` and
``torchvision::qnms``, which no one has declared, and the import fails. Declaring the two names is enough: networks are
plain PyTorch. Only what calls the extension itself (non-maximum suppression, image decoding) stays out of reach.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch

_NMS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@cache
def declare() -> torch.library.Library | None:
    """Declare torchvision's operator names, once, if its extension does not load.

    Returns:
        The declarations, which live as long as this object does (the cache keeps it); None when nothing was needed.
    """
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None or _extension_loads(Path(spec.origin).parent):
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + _NMS)
    return library


def _extension_loads(folder: Path) -> bool:
    # pyd is the extension's suffix on Windows
    for path in (*folder.glob("_C*.so"), *folder.glob("_C*.pyd")):
        try:
            torch.ops.load_library(path)
        except (OSError, ImportError):
            return False
        return True
    return False
