"""Integers to bytes and back: the entropy-coded model file."""

from .discovery import discover
from .files import decode, decoded, encode
from .report import Entry, Report, inspect
from .values import Codebook, Uniform, binary, ternary

__all__ = [
    "Codebook",
    "Entry",
    "Report",
    "Uniform",
    "binary",
    "decode",
    "decoded",
    "discover",
    "encode",
    "inspect",
    "ternary",
]
