"""Functions of many rows that other engines drive: they take and return Arrow's batches."""
