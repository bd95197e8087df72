"""Training: the only loop, and all that an optimizer's step or a cut changes."""
