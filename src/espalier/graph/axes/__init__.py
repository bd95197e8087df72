"""Axes: from a record to units, groups, and the equations and comparisons that tie their sizes."""
