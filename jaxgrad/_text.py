"""Text that several rooms write: columns that stand under one another, the nearest name to a wrong one."""

import difflib
from collections.abc import Collection, Iterable, Sequence


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Each row as a line, its cells padded to their column's width; the columns in `right` are flush right.

    Example:
      >>> aligned([("k", "1"), ("z", "-0.5")], right={1})
      ['k     1', 'z  -0.5']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question for an error: the known name nearest to a wrong one; "" where none is known.

    Example:
      >>> did_you_mean("hiden", ["x", "hidden"])
      'Did you mean "hidden"?'
    """
    near = difflib.get_close_matches(name, known, n=1, cutoff=0)
    return f'Did you mean "{near[0]}"?' if near else ""
