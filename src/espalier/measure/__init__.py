"""What a network costs: arithmetic, bytes and time."""

from .comparison import Comparison, compare, size_bytes
from .latency import Race, race
from .layers import check_tables, latency_tables
from .meet import Met, Trial, Trials, meet, predicted_ms
from .turns import Turns, in_turns

__all__ = [
    "Comparison",
    "Met",
    "Race",
    "Trial",
    "Trials",
    "Turns",
    "check_tables",
    "compare",
    "in_turns",
    "latency_tables",
    "meet",
    "predicted_ms",
    "race",
    "size_bytes",
]
