"""A traced program on wide numbers: float64, or complex128 for a step in the imaginary direction."""
