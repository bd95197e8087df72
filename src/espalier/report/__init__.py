"""A run as one page of HTML that needs nothing but a browser."""

from .page import render

__all__ = ["render"]
