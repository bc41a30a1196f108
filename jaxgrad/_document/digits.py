"""Printed digits: which values they stand for."""

from decimal import Context, Decimal


def interval(printed: str, *, rounded: bool) -> tuple[float, float]:
    """The least and the greatest value that the printed digits stand for."""
    number = Decimal(printed)
    if not rounded or not number.is_finite():
        return float(number), float(number)
    half = Decimal((0, (5,), int(number.as_tuple().exponent) - 1))
    exact = Context(prec=len(number.as_tuple().digits) + 2, traps=[])  # no trap: what overflows becomes infinite
    return float(exact.subtract(number, half)), float(exact.add(number, half))


def same_digits(text: str, printed: str) -> bool:
    """Whether two texts print the same number; a NaN is the same as a NaN."""
    a, b = Decimal(text), Decimal(printed)
    return a == b or (a.is_nan() and b.is_nan())
