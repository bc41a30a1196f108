"""Comparison: a row for each value, gradient and branch, which of them differs first, and why."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jaxgrad._compare.diagnosis import Diagnosis, diagnose
from jaxgrad._compare.entries import label
from jaxgrad._compare.tolerance import Tolerance
from jaxgrad._errors import DifferenceError
from jaxgrad._record import Record
from jaxgrad._text import aligned
from jaxgrad._types import Value


@dataclass(frozen=True)
class Row:
    """One value or one gradient, at its worst element; or whether one branch was taken.

    Attributes:
      name: the tag's; "output"; "arg[0]" for an argument; for a printed number, the quantity.
      kind: "value", "gradient" or "reached", which is whether the tag's branch was taken.
      got, want: the two numbers, of shape (); None where there is none.
      absolute, relative: the difference, and the difference over the size of `want`.
      ulp: the difference in ULP of `got`'s dtype; for a printed number, from the nearest that its digits stand for.
      index: where the worst element stands in the array; () in a scalar.
      ok: whether they agree.
      why: where they don't, in what; where neither side has a number, why; else "".
      key: of a printed number, its place in its table, by which its pair is known; else "".
    """

    name: str
    kind: str
    got: Any
    want: Any
    absolute: float
    relative: float
    ulp: float
    index: tuple[int, ...]
    ok: bool
    why: str = ""
    key: str = ""

    @property
    def label(self) -> str:
        """The name of a value, "name.grad" for a gradient, "name.reached" for a branch."""
        return self.name if self.key else label(self.name, self.kind)


@dataclass(frozen=True, eq=False)
class Pair:
    """The two arrays behind a row, and how far one may be off the other."""

    got: np.ndarray[Any, Any]
    want: np.ndarray[Any, Any]
    tolerance: Tolerance


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare` finds.

    Attributes:
      rows: a `Row` for each value in program order, behind one for its branch where it is inside one; then for each
        gradient from the output back.
      pairs: label of a row, or place of its printed number -> its two arrays, where both are there and can be
        compared.
      remarks: where names were paired, what has no partner and what was compared in another layout; by whose rounding
        it was judged, where that had to be found.
    """

    rows: tuple[Row, ...]
    pairs: Mapping[str, Pair] = field(default_factory=dict, repr=False)
    remarks: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return all(row.ok for row in self.rows)

    @property
    def first_divergence(self) -> Row | None:
        """The first row that differs: the first value in program order, or else the gradient nearest the output."""
        return next((row for row in self.rows if not row.ok), None)

    def raise_if_different(self) -> None:
        """Raises:
        DifferenceError: they differ; the text is the comparison.
        """
        if not self.ok:
            raise DifferenceError(str(self))

    def diagnose(self) -> tuple[Diagnosis, ...]:
        """Why each row that differs does, where its numbers tell, and in which rows of a batch.

        Example:
          >>> from jaxgrad import Record, compare
          >>> got = Record(np.float32(1), ("h",), {"h": np.float32([[2, 4], [1, 3]])}, {"h": None}, ())
          >>> for diagnosis in compare(got, {"h": np.float32([[1, 2], [1, 3]])}).diagnose():
          ...     print(diagnosis)
          h: factor 2: 2 times what it should be (rows 0)
        """
        return tuple(self._diagnosis(row) for row in self.rows if not row.ok)

    def _diagnosis(self, row: Row) -> Diagnosis:
        pair = self.pairs.get(row.key or row.label)
        if pair is None:
            return Diagnosis(row.label, "not comparable", row.why, ())
        if row.kind == "reached":
            return Diagnosis(row.label, "another branch", row.why, ())
        of_name = [self.pairs[name] for name in (row.name, label(row.name, "gradient")) if name in self.pairs]
        infinite = [~np.isfinite(p.got) for p in of_name if p.got.shape == pair.got.shape and p is not pair]
        elsewhere = any(np.isinf(p.got).any() for p in self.pairs.values() if p is not pair)
        mask = np.any(infinite, axis=0) if infinite and np.any(infinite) else np.asarray(True) if elsewhere else None
        return diagnose(row.label, pair.got, pair.want, pair.tolerance, mask)

    def __str__(self) -> str:
        return "\n".join((*_text(self.rows), *(f"\n{remark}" for remark in self.remarks)))

    def __repr__(self) -> str:
        wrong = sum(not row.ok for row in self.rows)
        return f"Comparison({len(self.rows)} rows, {f'{wrong} differ' if wrong else 'all agree'})"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


@runtime_checkable
class Reference(Protocol):
    """What knows by itself how a record compares with it, as a table of printed digits does."""

    def compare_to(self, got: Record, tolerance: Tolerance) -> Comparison:
        """The rows of the comparison, in the reference's own order."""
        ...


def differences(a: Value, b: Value) -> tuple[float, float]:
    """|a - b|, and that over |b|; 0 for equal ones, infinities and NaN among them."""
    if a == b or (np.isnan(a) and np.isnan(b)):
        return 0.0, 0.0
    a, b = (complex(v) if np.iscomplexobj(v) else float(v) for v in (a, b))
    absolute = float(np.abs(np.subtract(a, b)))
    return absolute, float(np.divide(absolute, np.abs(b)))


_WORDS = {"reached": "branch", "value": "value", "gradient": "gradient"}


def _text(rows: tuple[Row, ...]) -> Iterator[str]:
    """A line on what differs first, then the rows as a table."""
    wrong = [row for row in rows if not row.ok]
    if not wrong:
        yield f"all {len(rows)} rows agree"
    else:
        first = {kind: next((row.label for row in wrong if row.kind == kind), None) for kind in _WORDS}
        begins = [f"the first {_WORDS[kind]} to differ is {name}" for kind, name in first.items() if name]
        yield f"{len(wrong)} of {len(rows)} rows differ: {', '.join(begins)}"
    yield ""
    lines: list[tuple[str, ...]] = [("", "", "got", "want", "absolute", "relative", "ULP", "at", "")]
    lines += [_cells(row) for row in rows]
    yield from (line.rstrip() for line in aligned(lines, right=range(2, 7)))


def _cells(row: Row) -> tuple[str, ...]:
    mark = "" if row.ok else "!"
    if row.got is None or row.want is None:
        return mark, row.label, "", "", "", "", "", "", row.why or "none in either"
    at = str(list(row.index)) if row.index else ""
    steps = f"{row.ulp:.0f}" if row.ulp < 1e6 else f"{row.ulp:.1e}"
    numbers = (f"{row.absolute:.2g}", f"{row.relative:.2g}", steps)
    return mark, row.label, _digits(row.got), _digits(row.want), *numbers, at, row.why or "ok"


def _digits(value: Value) -> str:
    return str(np.asarray(value)[()])
