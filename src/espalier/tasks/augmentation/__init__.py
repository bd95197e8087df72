"""Augmentation: what happens to training batches, on whole batches at once."""
