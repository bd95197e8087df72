"""Recovery: what a cut breaks and a few batches mend, without training."""

from .batch_norm import reestimate_batch_norm
from .least_squares import least_squares, rescale_statistics
from .refit import Fit, Refitted

__all__ = ["Fit", "Refitted", "least_squares", "reestimate_batch_norm", "rescale_statistics"]
