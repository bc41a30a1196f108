"""Drawing a graph."""
