"""Rows in memory: a function of one row over as many rows as there are."""
