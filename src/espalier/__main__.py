"""``python -m espalier`` is the command ``espalier``."""

from .cli import main

main()
