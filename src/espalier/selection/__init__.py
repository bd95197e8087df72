"""Selection: scores, a budget and cost tables become a plan."""

from .planner import plan
from .sparsity import Sparsity, sparsify
from .strategies import STRATEGIES
from .tables import Conditions, Tables, TablesError

__all__ = ["STRATEGIES", "Conditions", "Sparsity", "Tables", "TablesError", "plan", "sparsify"]
