"""The report of a checked table, as text for people and as data for programs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import groupby
from typing import Any

import numpy as np
from jax import Array

from jaxgrad import neuron
from jaxgrad._compare.rows import Row
from jaxgrad._document import routes
from jaxgrad._document.check import Check
from jaxgrad._document.table import Number
from jaxgrad._graph.explain import explain
from jaxgrad._graph.graph import Edge, Graph, Node

WIDTH = 80
Found = Mapping[tuple[str, str], Row]

_TITLES = {1: "Part 1: the chain rule, by hand", 2: "Part 2: backpropagation, by autodiff"}
_NOT_IN_BATCH = ("k", "h", "df/dk", "df/dh")
_MOST_LINES = 8  # of the chain rule; a neuron of 64 inputs has 129


def text(check: Check) -> str:
    """The report for a terminal of 80 columns, in ASCII.

    Example:
      >>> from jaxgrad import reference
      >>> from jaxgrad._document.check import check
      >>> print(text(check(reference.load())).splitlines()[-1])  # doctest: +ELLIPSIS
      25 of 25 numbers agree on 5 routes, jitted and batched, 0 ULP: cpu, JAX ...
    """
    sections = [_heading(check), *_parts(check), _batch(check), _verdict(check)]
    return "\n\n".join("\n".join(section) for section in sections)


def data(check: Check) -> dict[str, Any]:
    """The report as JSON-ready data; numbers that JSON has not (NaN, infinities) are strings."""
    return {
        "ok": check.ok,
        "checked": len(check.table.numbers),
        "agreeing": check.agreeing,
        "worst_ulp": _json_number(check.worst_ulp),
        "device": check.device,
        "versions": {name: version(name) for name in ("jaxgrad", "jax", "jaxlib", "numpy")},
        "dtype": check.table.dtype.name,
        "x": [_json_number(value) for value in check.table.x],
        "w": [_json_number(value) for value in check.table.w],
        "cells": [
            {"part": cell.part, "cell": cell.cell, "source": cell.source, "here": cell.here}
            for cell in check.table.cells
        ],
        "numbers": [
            {
                "part": number.part,
                "cell": number.cell,
                "label": number.label,
                "quantity": number.quantity,
                "claims": number.claims,
                "printed": number.printed,
                "ok": all(row.ok for row in found.values()),
                "routes": [
                    {
                        "route": route,
                        "call": call,
                        "got": _json_number(row.got),
                        "ulp": _json_number(row.ulp),
                        "ok": row.ok,
                    }
                    for (route, call), row in found.items()
                ],
            }
            for number, found in check.numbers
        ],
    }


def _json_number(value: Any) -> float | str:
    number = float(value)
    return number if np.isfinite(number) else repr(number)


def _heading(check: Check) -> list[str]:
    return [
        check.table.title,
        "=" * WIDTH,
        formulas(len(check.table.x)),
        f"x = {_vector(check.table.x)}   w = {_vector(check.table.w)}   {check.table.dtype}",
        "",
        "Each printed number stands beside what is computed here, and how many ULP (steps",
        "of the last binary digit) each route is away from it: hand, the chain rule",
        "multiplied out; grad, vjp and jvp, JAX's own; retain, jaxgrad's retain_grads.",
    ]


def formulas(n: int) -> str:
    """The neuron of n inputs in the document's notation, in one line."""
    return f"z = {_linear_part(n)}     k = exp(-z)     h = 1 + k     f = 1/h"


def overflow(x: Array, w: Array) -> str:
    """What to say where the chain's gradient overflows, or is a false 0, and `backprop`'s is not; else ""."""
    chain, accurate = neuron.chain_rule(x, w), neuron.backprop(x, w)
    wrong = float(chain.grads["z"])
    right = float(accurate.grads["z"])
    if wrong == right or (np.isfinite(wrong) and wrong != 0):
        return ""
    z = float(chain.values["z"])
    return (
        f"\n\nNote: at z = {z:.4g} the chain overflows in {x.dtype}, and its df/dz is {wrong:.4g}.\n"
        f"neuron.backprop has df/dz = {right:.4g}: it is the neuron to use on data."
    )


def _linear_part(n: int) -> str:
    terms = [f"w{i}*x{i}" for i in range(n)] if n <= 2 else ["w0*x0", "..."]
    return " + ".join([*terms, f"w{n}"])


def _vector(values: np.ndarray[Any, Any]) -> str:
    shown = [str(value) for value in values[:4]] + (["..."] if len(values) > 4 else [])
    return f"({', '.join(shown)})"


def _parts(check: Check) -> Iterator[list[str]]:
    mislabelled = [number for number, _ in check.numbers if number.claims]
    marks = {id(number): f" [{i}]" for i, number in enumerate(mislabelled, start=1)}
    line = _line_format(check)
    for part, in_part in groupby(check.numbers, key=lambda entry: entry[0].part):
        section = [_TITLES.get(part, f"Part {part}" if part is not None else "Numbers"), "-" * WIDTH]
        section += _code_cells(check, part)
        for cell, in_cell in groupby(in_part, key=lambda entry: entry[0].cell):
            entries = list(in_cell)
            if part == 1 and any(number.quantity.startswith("df/d") for number, _ in entries):
                section += _chain_rule(check)
            where = f"In [{cell}]" if cell is not None else ""
            section.append(line(where, "printed", "here", list(routes.ROUTES)))
            for number, found in entries:
                section += _number(number, found, marks.get(id(number), ""), line)
            section.append("")
        section += [_note(check, number, marks[id(number)]) for number in mislabelled if number.part == part]
        yield section if section[-1] else section[:-1]


def _code_cells(check: Check, part: int | None) -> list[str]:
    """The cells of a part that print nothing, each with what it became."""
    cells = [cell for cell in check.table.cells if cell.part == part]
    lines = [f"In [{cell.cell}]  {_cut(cell.source, 24):<24}  ->  {_cut(cell.here, 40)}" for cell in cells]
    return [*lines, ""] if lines else []


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _chain_rule(check: Check) -> list[str]:
    """The chain rule of each argument in the ledger's words, with the numbers of the route by hand."""
    graph = _graph(check)
    names = [name for name, node in graph.nodes.items() if node.kind == "argument"]
    lines = [line for name in names[:_MOST_LINES] for line in explain(graph, name, style="plain").splitlines()]
    if len(names) > _MOST_LINES:
        lines.append(f"... and {len(names) - _MOST_LINES} more.")
    return [*lines, ""]


def _graph(check: Check) -> Graph:
    """The neuron as part 1 has it: values, gradients and local derivatives by hand."""
    record, columns = check.record, neuron.quantities(check.record)
    arguments = {f"w{i}": value for i, value in enumerate(check.table.w)}
    arguments |= {f"x{i}": value for i, value in enumerate(check.table.x)}
    nodes = {name: Node(name, "argument", value, columns[f"df/d{name}"]) for name, value in arguments.items()}
    nodes |= {name: Node(name, "tag", record.values[name], record.grads[name]) for name in record.names}
    edges = {(name, "z"): Edge(name, "z", columns[f"dz/d{name}"], columns[f"df/d{name}"]) for name in arguments}
    for source, target, local in (("z", "k", "dk/dz"), ("k", "h", "dh/dk"), ("h", "f", "df/dh")):
        edges[source, target] = Edge(source, target, columns[local], record.grads[source])
    return Graph(nodes, edges, output="f")


def _line_format(check: Check) -> Callable[[str, str, str, Sequence[str]], str]:
    """Formats a line of the table of numbers: label, printed digits, digits here, ULP on each route."""
    here_width = max(15, *(len(_here(found)) + 1 for _, found in check.numbers))
    ulp_widths = [len(route) + 1 for route in routes.ROUTES]
    printed_width = max(1, WIDTH - here_width - sum(ulp_widths))

    def line(label: str, printed: str, here: str, ulps: Sequence[str]) -> str:
        fits = len(label) + 1 + len(printed) <= printed_width
        start = f"{label}{printed:>{printed_width - len(label)}}" if fits else f"{label}\n{printed:>{printed_width}}"
        ends = "".join(f"{ulp:>{width}}" for ulp, width in zip(ulps, ulp_widths, strict=True))
        return f"{start}{here:>{here_width}}{ends}"

    return line


def _number(number: Number, found: Found, mark: str, line: Callable[[str, str, str, Sequence[str]], str]) -> list[str]:
    ulps = [_ulp(max(row.ulp for (r, _), row in found.items() if r == route)) for route in routes.ROUTES]
    return [
        line(number.label.removesuffix(":") + mark, number.printed, _here(found), ulps),
        *_differences(found),
    ]


def _here(found: Found) -> str:
    values = {str(row.got) for row in found.values()}
    return values.pop() if len(values) == 1 else "differ"


def _ulp(ulp: float) -> str:
    return f"{ulp:.0f}" if ulp < 1e4 else f"{ulp:.0e}".replace("e+0", "e").replace("e+", "e")


def _differences(found: Found) -> list[str]:
    """A line for each value that does not agree, with the routes that give it."""
    wrong = {way: row for way, row in found.items() if not row.ok}
    by_value: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for way, row in wrong.items():
        by_value.setdefault((repr(float(row.got)), _ulp(row.ulp)), []).append(way)
    return [f"  ^ {_ways(ways, len(found))}: {value}, {ulp} ULP away" for (value, ulp), ways in by_value.items()]


def _ways(ways: Sequence[tuple[str, str]], of: int) -> str:
    return "every route" if len(ways) == of else ", ".join(f"{route} by {call}" for route, call in ways)


def _note(check: Check, number: Number, mark: str) -> str:
    claimed = neuron.quantities(check.record).get(number.claims or "")
    truth = f"; {number.claims} is {claimed}" if claimed is not None else ""
    return f"{mark.strip()} The label says {number.claims}, but the number printed is {number.quantity}{truth}."


def _batch(check: Check) -> list[str]:
    columns: dict[str, Any] = {f"x{i}": check.rows[:, i] for i in range(min(2, check.rows.shape[1]))}
    columns |= neuron.quantities(check.batch)
    shown = [name for name in columns if not name.startswith(_NOT_IN_BATCH)][: WIDTH // 10]
    return [
        f"A batch: {len(check.rows)} rows through jit(vmap)",
        "-" * WIDTH,
        "".join(f"{name:>10}" for name in shown),
        *("".join(f"{columns[name][i]:>10.3g}" for name in shown) for i in range(len(check.rows))),
    ]


def _verdict(check: Check) -> list[str]:
    wrong = [(number, [way for way, row in found.items() if not row.ok], len(found)) for number, found in check.numbers]
    return [
        *(f"Does not agree: {number.place}: {_ways(ways, of)}." for number, ways, of in wrong if ways),
        f"{check.agreeing} of {len(check.table.numbers)} numbers agree on {len(routes.ROUTES)} routes, jitted and "
        f"batched, {_ulp(check.worst_ulp)} ULP: {check.device}, JAX {version('jax')}",
    ]
