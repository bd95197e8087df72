"""Selection: scores, a budget and cost tables become a plan."""

from .planner import plan
from .strategies import STRATEGIES

__all__ = ["STRATEGIES", "plan"]
