"""A program as a graph: its nodes, and each local derivative with its number."""
