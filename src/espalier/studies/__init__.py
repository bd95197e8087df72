"""Studies: many runs from one file, and what they say: does the heuristic matter, which block, which layer?

What is imported here is plain data for files and the command line; what needs torch is imported from its file.
"""

from .files import StudyError, read
from .study import Arm, Heuristics, Study, Subject

__all__ = ["Arm", "Heuristics", "Study", "StudyError", "Subject", "read"]
