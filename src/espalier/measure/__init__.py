"""What a network costs: arithmetic, bytes and time."""

from .comparison import Comparison, compare, size_bytes
from .latency import Race, race

__all__ = ["Comparison", "Race", "compare", "race", "size_bytes"]
