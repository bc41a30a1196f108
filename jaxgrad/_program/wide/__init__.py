"""A traced program on wide numbers: float64, exact or with drawn roundings, or complex128 for a complex step."""
