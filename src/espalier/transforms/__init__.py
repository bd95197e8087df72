"""Transforms: a network into another that computes the same, or nearly."""

from .adaround import AdaRound
from .fold import fold_
from .packed import packed
from .quantization import Quantization, Quantized, quantize

__all__ = ["AdaRound", "Quantization", "Quantized", "fold_", "packed", "quantize"]
