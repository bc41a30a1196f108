"""A function as a traced program. The only room that reads JAX's equations."""
