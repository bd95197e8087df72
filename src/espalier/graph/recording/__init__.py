"""Recording: run a model once, and write down which operators ran and what its Python did with sizes."""
