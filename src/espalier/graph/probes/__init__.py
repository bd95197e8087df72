"""Probes: what units carry and how they are read, on the live model: gates, taps, features, regressions."""
