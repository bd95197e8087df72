"""Selection: scores, a budget and cost tables become a plan."""

from .clustering import Clusters, cluster
from .planner import plan
from .sparsity import Sparsity, sparsify
from .strategies import STRATEGIES
from .tables import Conditions, Tables, TablesError

__all__ = ["STRATEGIES", "Clusters", "Conditions", "Sparsity", "Tables", "TablesError", "cluster", "plan", "sparsify"]
