"""The formula of each site of a program: what it is computed by, from the sites and arguments before it."""

from collections.abc import Mapping, Sequence

from jaxgrad._graph.formula import Formula, apply, name
from jaxgrad._program.control_flow.parameters import scan_sizes
from jaxgrad._program.formulas.elements import elements_of
from jaxgrad._program.formulas.names import library_name
from jaxgrad._program.formulas.operation import whole_of
from jaxgrad._program.formulas.softmax import softmaxes
from jaxgrad._program.formulas.written import Written, constant
from jaxgrad._program.jaxpr import Path, Program, inner, is_literal, opened
from jaxgrad._program.sites import Site
from jaxgrad._types import Atom, Eqn, Jaxpr


def formulas(program: Program, sites: Sequence[Site], arguments: Sequence[Written], output: str) -> dict[str, Written]:
    """Name of each site, and of the output -> what it is computed by."""
    names: dict[tuple[Path, int], str] = {}
    for site in sites:
        names[(site.path, site.result) if site.place in names else site.place] = site.name
    reading = _Reading(names)
    consts = [constant(value) for value in program.consts]
    found = reading.program(program.jaxpr, consts, arguments, ())
    return {output: found[0], **reading.found} if output not in reading.found else reading.found


class _Reading:
    """A program read equation by equation.

    Attributes:
      names: (path, result) -> name of the site there.
      found: name -> what is computed there.
    """

    def __init__(self, names: Mapping[tuple[Path, int], str]):
        self.names = names
        self.found: dict[str, Written] = {}

    def program(
        self, jaxpr: Jaxpr, consts: Sequence[Written], arguments: Sequence[Written], path: Path
    ) -> list[Written]:
        env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

        def read(atom: Atom) -> Written:
            return constant(atom.val) if is_literal(atom) else env[atom]

        softmax = softmaxes(jaxpr)
        for i, eqn in enumerate(jaxpr.eqns):
            here = (*path, i)
            results = self.equation(eqn, list(map(read, eqn.invars)), here)
            if softmax.get(i) is not None:
                results = [Written(apply("softmax", read(softmax[i]).whole))]
            for k, (var, value) in enumerate(zip(eqn.outvars, results, strict=True)):
                site = self.names.get((here, k))
                if site is not None:
                    self.found[site] = value
                    value = Written(name(site, var.aval.shape))
                env[var] = value
        return [read(atom) for atom in jaxpr.outvars]

    def equation(self, eqn: Eqn, operands: Sequence[Written], here: Path) -> Sequence[Written]:
        kind = eqn.primitive.name
        if kind in ("jit", "remat2", "custom_jvp_call", "custom_vjp_call", "checkpoint"):
            return self.call(eqn, operands, here)
        if kind == "scan":
            return self.scan(eqn, operands, here)
        if kind in ("cond", "shard_map", "while"):
            for j, body in enumerate(inner(eqn)):
                self.inside(body, (operands[1:] if kind == "cond" else operands), (*here, j))
        return [result(eqn, operands, k) for k in range(len(eqn.outvars))]

    def inside(self, body: Jaxpr, operands: Sequence[Written], path: Path) -> None:
        """Reads a body whose operands are the equation's, if they are as many."""
        jaxpr, consts = opened(body)
        if len(jaxpr.invars) == len(operands):
            self.program(jaxpr, list(map(constant, consts)), operands, path)

    def call(self, eqn: Eqn, operands: Sequence[Written], here: Path) -> Sequence[Written]:
        """A function that is called: its body, or its name where that says more and nothing within has a name."""
        body, *_ = inner(eqn)
        jaxpr, consts = opened(body)
        results = self.program(jaxpr, list(map(constant, consts)), operands, (*here, 0))
        known = library_name(eqn)
        own = {site for (path, _), site in self.names.items() if path[: len(here)] == here and len(path) > len(here)}
        if not known or own - {results[0].whole.text}:
            return results
        named = Written(apply(known, *(operand.whole for operand in operands), shape=eqn.outvars[0].aval.shape))
        if not own:
            return [named]
        self.found[results[0].whole.text] = named
        return results

    def scan(self, eqn: Eqn, operands: Sequence[Written], here: Path) -> Sequence[Written]:
        """One step: what is carried is the step's before, `h[t-1]`, and what is scanned over is the step's own."""
        jaxpr, consts = opened(inner(eqn)[0])
        n_constants, n_carry = scan_sizes(eqn)
        shapes = [var.aval.shape for var in jaxpr.invars]
        before = [name("the last step's carry", shape) for shape in shapes[n_constants : n_constants + n_carry]]
        earlier = "t+1" if eqn.params["reverse"] else "t-1"
        for i, site in enumerate(self.carried(jaxpr, (*here, 0), n_carry)):
            if site:
                before[i] = name(f"{site}[{earlier}]", before[i].shape)
        steps = [
            apply("[]", operand.whole, text="t", shape=shape)
            for operand, shape in zip(operands[n_constants + n_carry :], shapes[n_constants + n_carry :], strict=True)
        ]
        given = [*operands[:n_constants], *map(Written, [*before, *steps])]
        results = self.program(jaxpr, list(map(constant, consts)), given, (*here, 0))
        outs = [var.aval.shape for var in eqn.outvars]
        wholes = [found.whole for found in results]
        return [
            Written(_after(whole, shape, last=i < n_carry))
            for i, (whole, shape) in enumerate(zip(wholes, outs, strict=True))
        ]

    def carried(self, jaxpr: Jaxpr, path: Path, n: int) -> list[str]:
        """For each carried value the site that it comes from at the end of a step; "" where it is none."""
        site_of = {
            var: self.names[(*path, i), k]
            for i, eqn in enumerate(jaxpr.eqns)
            for k, var in enumerate(eqn.outvars)
            if ((*path, i), k) in self.names
        }
        return ["" if is_literal(atom) else site_of.get(atom, "") for atom in jaxpr.outvars[:n]]


def result(eqn: Eqn, operands: Sequence[Written], k: int) -> Written:
    """What a result of an equation is."""
    shape = getattr(eqn.outvars[k].aval, "shape", ())
    whole = whole_of(eqn, [operand.whole for operand in operands], shape)
    elements = elements_of(eqn, operands, shape)
    if elements is not None and shape == ():
        (whole,) = elements.flat
    return Written(whole, elements)


def _after(step: Formula, shape: tuple[int, ...], *, last: bool) -> Formula:
    """What comes out of a scan: a named value of its last step, or of all; the rest has no short name."""
    if step.op == "name":
        return apply("[]", step, text="-1", shape=shape) if last else name(step.text, shape)
    return apply("scan", *step.args, shape=shape)
