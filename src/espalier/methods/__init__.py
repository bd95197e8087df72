"""Methods: one paper, one file. The protocol that they follow is in ``protocol``."""

from .protocol import Context, Method, Restore, Snapshot, Stored

__all__ = ["Context", "Method", "Restore", "Snapshot", "Stored"]
