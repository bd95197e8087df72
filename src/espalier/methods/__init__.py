"""Methods: one paper, one file. The protocol that they follow is in ``protocol``, their names are in ``registry``."""

from .protocol import Context, Goal, Method, MethodError, Quantizer, Restore, Snapshot, Stored

__all__ = ["Context", "Goal", "Method", "MethodError", "Quantizer", "Restore", "Snapshot", "Stored"]
