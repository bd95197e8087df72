"""Signals: what criteria are computed from: slices of weights, and streamed gradients, activations and curvature."""
