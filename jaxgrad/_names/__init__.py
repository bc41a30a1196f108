"""How an intermediate gets its name."""
