"""Verdicts: whether a record is what it should be, and if not, where and why."""
