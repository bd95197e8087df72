"""A run, or a study of many, as one page of HTML that needs nothing but a browser."""

from .page import render
from .study import render_study

__all__ = ["render", "render_study"]
