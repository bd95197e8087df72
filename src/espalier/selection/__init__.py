"""Selection: scores, a budget and cost tables become a plan."""

from .planner import plan
from .strategies import STRATEGIES
from .tables import Conditions, Tables, TablesError

__all__ = ["STRATEGIES", "Conditions", "Tables", "TablesError", "plan"]
