"""Text that several rooms write: aligned columns, the nearest name to a wrong one, one line of whatever was found."""

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


def one_line(text: str, longest: int = 2000) -> str:
    """A text as one line that any terminal can show: white space is one space, control characters are escaped.

    Example:
      >>> one_line("it is\\n \\x1b[31mred")
      'it is \\\\x1b[31mred'
    """
    cut = f"{text[:longest]}..." if len(text) > longest else text
    return escaped(" ".join(cut.split()))


def escaped(text: str) -> str:
    """The text with what cannot be printed written as Python would: an escape, half a surrogate, a bell."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def short(text: str, longest: int = 60) -> str:
    """A cell or name of a user's file as an error quotes it: cut where it is long, and printable."""
    return escaped(text if len(text) <= longest else f"{text[:longest]}...")


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names with commas between them, the first of them where there are many.

    Example:
      >>> listed(["a", "b", "c"], most=2)
      'a, b, ... (3 in all)'
    """
    shown = ", ".join(map(short, names[:most]))
    return shown if len(names) <= most else f"{shown}, ... ({len(names)} in all)"
