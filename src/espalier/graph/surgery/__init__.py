"""Surgery: change tensors and attributes of a module, its configs and its optimizer, and nothing else."""
