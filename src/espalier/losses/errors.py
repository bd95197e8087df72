"""The one error of this room."""

from ..core import EspalierError


class DistillationError(EspalierError):
    """A teacher, a student and an objective do not go together."""
