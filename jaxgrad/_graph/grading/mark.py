"""What a learner is told: one answer, marked, and all of them."""

from dataclasses import dataclass
from html import escape
from typing import Any

from jaxgrad._graph.numbers import number

BY_CHANCE = "right here by chance"


@dataclass(frozen=True, eq=False)
class Mark:
    """One answer, marked.

    Attributes:
      source, target: the derivative that was asked for; for a total the target is the output.
      ok: is it right, at this input and where it was tried elsewhere?
      got: the learner's derivative.
      want: the true one.
      mistake: what seems to be wrong; "" if it is right, or if no known mistake fits.
      hint: where to look again; "" unless hints were asked for, and then the text has nothing of `want` in it.
    """

    source: str
    target: str
    ok: bool
    got: Any
    want: Any
    mistake: str = ""
    hint: str = ""

    def __str__(self) -> str:
        factor = f"d{self.target}/d{self.source}"
        if self.ok:
            return f"{factor} = {number(self.got)}: right"
        if self.hint:
            return f"{factor} = {number(self.got)} is not right yet: {self.hint}"
        if self.mistake.startswith(BY_CHANCE):
            return f"{factor} = {number(self.got)} is {self.mistake}"
        why = f": {self.mistake}" if self.mistake else ""
        return f"{factor} = {number(self.got)} is wrong, it is {number(self.want)}{why}"


@dataclass(frozen=True, eq=False)
class Grade:
    """Every answer, marked, in the order given.

    Attributes:
      marks: one for each answer.
      what: what the answers are, "factors" or, where totals are among them, "answers".
    """

    marks: tuple[Mark, ...]
    what: str = "factors"

    @property
    def ok(self) -> bool:
        """Are all of them right?"""
        return all(mark.ok for mark in self.marks)

    @property
    def wrong(self) -> tuple[Mark, ...]:
        """The marks that are not."""
        return tuple(mark for mark in self.marks if not mark.ok)

    def __str__(self) -> str:
        right = len(self.marks) - len(self.wrong)
        return "\n".join([*map(str, self.marks), f"{right} of {len(self.marks)} {self.what} are right."])

    def _repr_html_(self) -> str:
        items = "".join(f"<li>{'✓' if mark.ok else '✗'} {escape(str(mark))}</li>" for mark in self.marks)
        right = len(self.marks) - len(self.wrong)
        return f'<ul style="list-style: none">{items}</ul><p>{right} of {len(self.marks)} {self.what} are right.</p>'

    def __repr__(self) -> str:
        return f"Grade({len(self.marks) - len(self.wrong)} of {len(self.marks)} {self.what} right)"
