"""Recipes: the settings, the only training loop, and the pipeline from a model to a smaller one.

Import from the files: ``settings`` is plain data for the command line and imports no torch, the others do.
"""
