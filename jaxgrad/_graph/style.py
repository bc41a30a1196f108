"""How a chain rule is written: in Unicode, in ASCII, or as LaTeX."""

import re
import textwrap
from typing import NamedTuple

WIDTH = 80


class Style(NamedTuple):
    """How a chain rule is written."""

    whole: str  # gradient: the derivative of {0} with respect to {1} along every path
    local: str  # local derivative: every other node held fixed
    direct: str  # the same where it would read as the whole
    times: str
    matmul: str
    contract: str  # of more axes than a matrix product has
    equals: str
    dots: str
    negative: str  # a negative factor


STYLES = {
    "unicode": Style("d{0}/d{1}", "∂{0}/∂{1}", "∂{0}/∂{1}", " · ", " · ", " · ", " = ", "…", "{}"),
    "plain": Style("d{0}/d{1}", "d{0}/d{1}", "(d{0}/d{1})", " * ", " @ ", " . ", " = ", "...", "{}"),
    "latex": Style(
        r"\frac{{\mathrm{{d}} {0}}}{{\mathrm{{d}} {1}}}",
        r"\frac{{\partial {0}}}{{\partial {1}}}",
        r"\frac{{\partial {0}}}{{\partial {1}}}",
        r" \cdot ",
        r" \, ",
        r" \, ",
        " = ",
        r"\cdots",
        r"\left({}\right)",
    ),
}


def wrapped(line: str, width: int) -> list[str]:
    """A line broken at its spaces, what follows it indented; a number stays with its equals sign."""
    if len(line) <= width:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()))
    glued = re.sub(r"\[[^\[\]]{1,50}\]|\([^()]{1,50}\)", lambda match: match.group().replace(" ", "\0"), line.strip())
    glued = re.sub(r"([=\N{MIDDLE DOT}*@]) ", "\\1\0", glued)
    first, *rest = textwrap.wrap(glued, width - len(indent) - 4, break_long_words=False, break_on_hyphens=False) or [""]
    return [part.replace("\0", " ") for part in [indent + first, *(f"{indent}    {part}" for part in rest)]]


def exponent(text: str) -> str:
    mantissa, e, exponent = text.partition("e")
    return rf"{mantissa} \times 10^{{{int(exponent)}}}" if e and exponent.lstrip("+-").isdigit() else text


def escaped(text: str) -> str:
    specials = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(specials.get(c, "\\" + c if c in "_#$%&{}" else c) for c in text)
