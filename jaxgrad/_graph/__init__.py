"""A graph of nodes and edges with their numbers: written out, graded and drawn. Knows nothing of JAX."""
