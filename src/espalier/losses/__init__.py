"""Losses that a training loop adds to the task's own: distillation from a teacher."""
