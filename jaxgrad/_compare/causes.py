"""Where differences begin: the rows whose inputs agree. What is computed from a row that differs, differs too."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
from jax.tree_util import keystr, tree_flatten_with_path, tree_leaves

from jaxgrad._compare.entries import as_recorded, label
from jaxgrad._compare.rows import Row
from jaxgrad._compare.tried import tried
from jaxgrad._program.interpreter import run
from jaxgrad._program.liveness import dependence
from jaxgrad._record import Call, Record
from jaxgrad._retain.call import TracedCall, trace_call

Inputs = Mapping[str, frozenset[str]]  # label of a row -> those of the rows that it is computed from


def roots(rows: Sequence[Row], inputs: Inputs) -> tuple[Row, ...]:
    """The rows that differ while all that they are computed from agrees; and each that one side lacks.

    Where it is not known what a row is computed from: the first value that differs, and the first gradient.
    """
    first = [_first(rows, backward=False), _first(rows, backward=True)]
    found, wrong = [], set[str]()  # those that stand before a row: in a loop a tag is made of those behind it too
    for row in (row for row in rows if not row.ok):
        known = row.label in inputs
        begins = not inputs[row.label] & wrong if known else any(row is each for each in first)
        found += [row] if begins or is_lacking(row) else []
        wrong.add(row.label)
    return tuple(found)


def is_lacking(row: Row) -> bool:
    """Has one side no such number at all, whatever the others are?"""
    return row.got is None and row.want is None and row.why.startswith(("missing:", "extra:"))


def _first(rows: Sequence[Row], *, backward: bool) -> Row | None:
    return next((row for row in rows if not row.ok and (row.kind == "gradient") == backward), None)


def inputs_of(record: Record) -> Inputs:
    """What each value and gradient of a record is computed from, from tag to tag; {} where its program is not known.

    A value is made of the tags before it. A gradient is the sum, over the tags and the output that are made of it, of
    their gradients times local derivatives, and these are taken at the values that the tags are made of.
    """
    if record._call is None and record._origin.traced is None:
        return {}
    find = partial(_of_call, record._call) if record._call is not None else partial(_inputs_of, record._origin.traced)
    with as_recorded(record):
        return tried(find)[0] or {}


def _of_call(call: Call) -> Inputs:
    options = {**call.options, "names": None if isinstance(call.options["names"], Mapping) else call.options["names"]}
    forced = options.pop("forced")
    return _inputs_of(trace_call(call.fun, call.args, dict(call.kwargs), **options), is_forced=forced is not None)


def _inputs_of(planned: TracedCall, *, is_forced: bool = False) -> Inputs:
    probed = [i for i, site in enumerate(planned.sites) if site.note is None]
    n, consts = len(planned.leaves), planned.program.consts
    unknown = [i for i, const in enumerate(consts) if isinstance(const, jax.ShapeDtypeStruct)]

    def step(*sources: Any) -> list[Any]:
        probes = {i: planned.sites[i].raw(value) for i, value in zip(probed, sources[n:], strict=False)}
        given = dict(zip(unknown, sources[n + len(probed) :], strict=True))
        program = replace(planned.program, consts=[given.get(i, const) for i, const in enumerate(consts)])
        output, _, (values, _) = run(program, planned.sites, sources[:n], probes, cut=True)
        return [*(planned.sites[i].present(values[i]) for i in probed), *tree_leaves(output)]

    zeros = [planned.sites[i].present(planned.sites[i].probe()) for i in probed]
    depends = dependence(step, *planned.leaves, *zeros, *(consts[i] for i in unknown))
    names = [planned.sites[i].name for i in probed]
    arguments = [f"arg{keystr(path)}" for path, _ in tree_flatten_with_path(planned.arg_grads(list(range(n))))[0]]
    sources, targets = [*arguments, *names], [*names, "output"]
    made_of = {
        target: {sources[i] for i in found if i < len(sources)} for target, found in zip(targets, depends, strict=True)
    }
    if is_forced:  # each piece is on the reference's own values and cotangents
        made_of = {target: set() for target in targets}
    found = {target: frozenset(made_of[target] & set(names)) for target in targets}
    for source in sources:
        consumers = [target for target in targets if source in made_of[target]]
        point = {name for target in consumers for name in made_of[target] & set(names)}
        above = {label(target, "gradient") for target in consumers if target != "output"}
        found[label(source, "gradient")] = frozenset(point | above)
    return found
