"""Comparison: a row for each value, gradient and branch, which of them differs first, and why."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Protocol, runtime_checkable

import numpy as np

from jaxgrad._compare.causes import Inputs, is_lacking, roots
from jaxgrad._compare.diagnosis.diagnose import Diagnosis, diagnose
from jaxgrad._compare.entries import label
from jaxgrad._compare.rows import Pair, Row
from jaxgrad._compare.tolerance import Tolerance
from jaxgrad._errors import DifferenceError
from jaxgrad._record import Record
from jaxgrad._text import aligned
from jaxgrad._types import Value


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
      inputs: label of a row -> those of the rows that it is computed from, where that is known.
    """

    rows: tuple[Row, ...]
    pairs: Mapping[str, Pair] = field(default_factory=dict, repr=False)
    remarks: tuple[str, ...] = ()
    inputs: Inputs = field(default_factory=dict, repr=False)

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

    @property
    def roots(self) -> tuple[Row, ...]:
        """The rows at which differences begin: what they are computed from agrees. The others follow from them.

        Of a record of `retain_grads` it is known what is computed from what. Else the roots are the first value
        that differs and the first gradient, the latter too only if it is not known to follow from the former.
        """
        return roots(self.rows, self.inputs)

    def diagnose(self, *, following: bool = False) -> tuple[Diagnosis, ...]:
        """Why each of the `roots` differs, where its numbers tell, and in which rows of a batch.

        Args:
          following: diagnose every row that differs, and so what follows from the roots too?

        Example:
          >>> from jaxgrad import Record, compare
          >>> got = Record(np.float32(1), ("h",), {"h": np.float32([[2, 4], [1, 3]])}, {"h": None}, ())
          >>> for diagnosis in compare(got, {"h": np.float32([[1, 2], [1, 3]])}).diagnose():
          ...     print(diagnosis)
          h: factor 2: 2 times what it should be (rows 0)
        """
        found = [self._diagnosis(row) for row in self.rows if not row.ok] if following else []
        if not following:
            of_roots = [(row, self._diagnosis(row)) for row in self.roots]
            found = [each for row, each in of_roots if not self._may_follow(row, each)]
        return tuple(found)

    def _may_follow(self, row: Row, diagnosis: Diagnosis) -> bool:
        """Is a gradient, of which it is not known what it is made of, perhaps but what a wrong value leads to?"""
        values = any(not other.ok and other.kind != "gradient" for other in self.rows)
        unknown = row.kind == "gradient" and row.label not in self.inputs and diagnosis.cause == "unknown"
        return unknown and values and not is_lacking(row)

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
        lengths = {size for each in self.pairs.values() for size in (*each.want.shape, each.want.size)}
        return diagnose(row.label, pair.got, pair.want, pair.tolerance, mask, lengths)

    def __str__(self) -> str:
        return "\n".join((*_text(self.rows, self._causes()), *(f"\n{remark}" for remark in self.remarks)))

    def _causes(self) -> Iterator[str]:
        """A line for each root, and one that counts what follows from them."""
        found = self.diagnose()
        yield from (f"  {diagnosis}" for diagnosis in found[:_MOST_ROOTS])
        if len(found) > _MOST_ROOTS:
            yield f"  and {len(found) - _MOST_ROOTS} more, as comparison.diagnose() has them"
        following = sum(not row.ok for row in self.rows) - len(found)
        if following:
            what = "row follows" if following == 1 else "rows follow"
            yield f"  {following} more {what} from {'this' if len(found) == 1 else 'these'}" + (
                "" if self.inputs else ", or may: what is computed from what is not known"
            )

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


_WORDS = {"reached": "branch", "value": "value", "gradient": "gradient"}
_MOST_ROOTS = 8  # that a text diagnoses


def _text(rows: tuple[Row, ...], causes: Iterable[str]) -> Iterator[str]:
    """A line on what differs first, one on each cause, then the rows as a table."""
    wrong = [row for row in rows if not row.ok]
    if not wrong:
        yield f"all {len(rows)} rows agree"
    else:
        first = {kind: next((row.label for row in wrong if row.kind == kind), None) for kind in _WORDS}
        begins = [f"the first {_WORDS[kind]} to differ is {name}" for kind, name in first.items() if name]
        yield f"{len(wrong)} of {len(rows)} rows differ: {', '.join(begins)}"
        yield from causes
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
