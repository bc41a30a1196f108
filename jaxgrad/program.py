"""A function as a traced program: its tags found, and the same program with a probe at each tag.

    trace(fun) -> Program;  program.select(names) -> sites;  program.run(sites, leaves, probes) -> results, found
    program.operations() -> sites, where there are no tags

The probe at a site is an argument that is added to the intermediate for derivatives only: the gradient with
respect to the probe is the gradient with respect to the intermediate, and the values are those of the program
without it, to the bit. Where the program is `cut` there, the probe is the value that what comes after is computed
from, so that the program is one piece from each site to the next.
"""

import difflib
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Literal, jaxprs_in_params
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxgrad.control import CONTROLS, Body, Eqn, Flow, Found, Live, Probes, manual, unsupported, varying
from jaxgrad.errors import TagError
from jaxgrad.tags import tag_p
from jaxgrad.wide import Wide

Join = Callable[[Any, Any], Any]  # (value, probe) -> what stands for the value from there on
Path = tuple[int, ...]  # where an equation stands: its index, then body and index for each program inside a program


@dataclass(frozen=True)
class Site:
    """One place in a program where an intermediate is named.

    Attributes:
      name: its name in the record, unique: "z", or "z[0]" where "z" is used more than once.
      given: the name as given to `tag` or `checkpoint_name`.
      where: file and line of the tag.
      by_tag: named by `tag`, not by `checkpoint_name`.
      path: where its equation stands.
      result: which of the equation's results it is.
      aval: type of the value where it stands.
      lead: axes that the value gains on its way out: one for each scan, and for each shard_map it varies in.
      axes: axes that vmap has added to the value where it stands, outermost first.
      manual: mesh axes that shard_maps of the program around it make manual.
      nest: what it stands in, outermost first: "lead" for each axis of `lead`, "vmap" for each vmap.
      in_branch: is it unsure whether it is reached?
      in_while: is it in a while_loop?
      state: "live" if its result reaches the output; "bypassed" if only its operand does; "dead" if neither.
      unsupported: why its gradient would be wrong here, None if it would not.
    """

    name: str
    given: str
    where: str
    by_tag: bool
    path: Path
    aval: Any
    result: int = 0
    lead: tuple[int, ...] = ()
    axes: tuple[int, ...] = ()
    manual: frozenset[str] = frozenset()
    nest: tuple[str, ...] = ()
    in_branch: bool = False
    in_while: bool = False
    state: str = "live"
    unsupported: str | None = None

    @property
    def label(self) -> str:
        kind = "tag" if self.by_tag else "checkpoint_name"
        return f'{kind} "{self.name}" ({self.where})' if self.where else f'{kind} "{self.name}"'

    @property
    def note(self) -> str | None:
        """Why there is no gradient; None if there is one."""
        if not jnp.issubdtype(self.aval.dtype, jnp.inexact):
            return f"{'float0' if self.aval.dtype == jax.dtypes.float0 else self.aval.dtype} has no gradient"
        if self.in_while:
            return "while_loop has no reverse mode: the last value, no gradient"
        if self.state == "dead":
            return "does not reach the output"
        return None

    def probe(self) -> jax.Array:
        """Zeros like the stacked value, sharded as it is where the mesh makes shardings part of the type.

        Where the program runs in a shard_map, they vary over its shards as the value does: a probe that is one for
        all shards would have the sum of their gradients.
        """
        sharding = self.aval.sharding
        shape = self.lead + self.aval.shape
        if set(sharding.mesh.axis_types) != {AxisType.Explicit}:
            zeros = jnp.zeros(shape, self.aval.dtype)
            around = tuple(varying(self.aval) - self.manual)
            return lax.pcast(zeros, around, to="varying") if around else zeros
        spec = PartitionSpec(*[None] * len(self.lead), *sharding.spec)
        return jnp.zeros(shape, self.aval.dtype, out_sharding=NamedSharding(sharding.mesh, spec))

    @property
    def layouts(self) -> set[tuple[int, ...]]:
        """The orders in which the leading axes of the stacked value can stand, outermost first; one, if it is sure.

        A vmap that does not batch the value adds no axis to it. JAX does not say which of them did, which matters
        where there is a scan between them.
        """
        vmaps = [i for i, kind in enumerate(self.nest) if kind == "vmap"]
        orders = set()
        for batching in combinations(vmaps, len(self.axes)):
            leads = iter(range(len(self.lead)))
            batches = iter(len(self.lead) + axis for axis in self.axes)
            kept = [i for i, kind in enumerate(self.nest) if kind == "lead" or i in batching]
            orders.add(tuple(next(leads) if self.nest[i] == "lead" else next(batches) for i in kept))
        return orders

    def present(self, array: jax.Array) -> jax.Array:
        """The stacked value or gradient, its leading axes in the order of what it stands in."""
        (order,) = self.layouts
        return jnp.moveaxis(array, order, range(len(order))) if order != tuple(range(len(order))) else array

    def raw(self, array: jax.Array) -> jax.Array:
        """What `present` was given."""
        (order,) = self.layouts
        return jnp.moveaxis(array, range(len(order)), order) if order != tuple(range(len(order))) else array


@dataclass(frozen=True)
class Program:
    """A traced function of flat arrays.

    Attributes:
      jaxpr: the function, as JAX traced it.
      consts: what it closes over.
      sites: every named intermediate, in program order.
      output, aux: shapes and dtypes of what it returns, as pytrees.
    """

    jaxpr: Any
    consts: Sequence[Any]
    sites: tuple[Site, ...]
    output: Any
    aux: Any

    def select(self, names: Sequence[str] | None) -> tuple[Site, ...]:
        """The sites that `names` asks for, checked: each has a right gradient, or none and says so.

        Raises:
          TagError: there is nothing by such a name, or no tag at all; a tag is bypassed or cannot be followed.
        """
        chosen = tuple(_chosen(self.sites, names))
        for site in chosen:
            if site.unsupported:
                raise TagError(f"{site.label} {site.unsupported}, or leave it out by `names`.")
            if site.state == "bypassed":
                raise TagError(
                    f"{site.label} is bypassed: its result does not reach the output but its input does, so its "
                    f'gradient would read a misleading 0. Write `{site.given} = tag({site.given}, "{site.given}")` '
                    "and use the result."
                )
            if not site.by_tag and "vmap" in site.nest:
                raise TagError(
                    f"{site.label} is in a vmap, and does not keep which of its axes is the batch. Name it by "
                    "`jaxgrad.tag`, or take vmap outside: vmap(retain_grads(...))."
                )
            if len(site.layouts) != 1:
                raise TagError(
                    f"{site.label} is in several vmaps and scans, and not batched by all of those vmaps, so the order "
                    "of its leading axes is unknown. Tag it outside of the vmap that does not batch it."
                )
        return chosen

    def operations(self) -> tuple[Site, ...]:
        """A site for each result of each operation that computes, named after it; calls of `jit` are looked into."""
        return tuple(_named(list(_operations(self.jaxpr, ()))))

    def output_site(self, sites: Sequence[Site]) -> int | None:
        """Which of the sites the output is, None if it is none of them."""
        origin = _origin(self.jaxpr, self.jaxpr.outvars[0], ())
        return next((i for i, site in enumerate(sites) if (site.path, site.result) == origin), None)

    def run(
        self,
        sites: Sequence[Site],
        leaves: Sequence[Any],
        probes: Probes,
        *,
        cut: bool = False,
        wide: Wide | None = None,
    ) -> tuple[Any, Any, Found]:
        """Evaluates the program with a probe at the sites.

        Args:
          sites: from `select`.
          leaves: the program's arguments.
          probes: index into `sites` -> probe; a site without one gets no gradient.
          cut: are the probes values, that what comes after their sites is computed from?
          wide: numbers in which to evaluate it instead of its own; there the probes are added to the values too.

        Returns:
          output, aux, and index into `sites` -> value, index into `sites` -> was it reached.
        """
        inside: dict[Path, dict[int, Site]] = {}
        for i, site in enumerate(sites):
            for depth in range(1, len(site.path) + 1, 2):
                inside.setdefault(site.path[:depth], {})[i] = site
        results, found = _run(self.jaxpr, self.consts, leaves, probes, (), inside, _cut if cut else _probed, wide)
        output, aux = jax.tree.unflatten(jax.tree.structure((self.output, self.aux)), map(_array, results))
        return output, aux, found


def trace(fun: Callable[..., tuple[Any, Any]], leaves: Sequence[Any]) -> Program:
    """Traces `fun(*leaves)`, which returns (output, aux), pytrees of arrays; every error in `fun` is raised here."""
    try:
        closed, (output, aux) = jax.make_jaxpr(fun, return_shape=True)(*leaves)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        error.add_note(
            "The arguments that are differentiated are traced, as under jax.jit. Write jnp.where or lax.cond in place "
            "of `if`, jnp in place of np, or leave the argument out of `argnums`."
        )
        raise
    jaxpr, consts = opened(closed)
    sites = list(_find(jaxpr, (), Site("", "", "", True, (), None), in_shard_map=False))
    n_outputs = len(jax.tree.leaves(output))
    states: dict[Path, str] = {}
    _flow(jaxpr, (), states, [i < n_outputs for i in range(len(jaxpr.outvars))])
    sites = [replace(site, state=states.get(site.path, "live")) for site in sites]
    return Program(jaxpr, consts, tuple(sites), output, aux)


def opened(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    """A jaxpr, open or closed, and its constants."""
    return getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())


def _find(jaxpr: Any, path: Path, around: Site, *, in_shard_map: bool) -> Iterator[Site]:
    """The sites of a program in its order; `around` has what its surroundings impose on each."""
    for i, eqn in enumerate(jaxpr.eqns):
        here = (*path, i)
        name = eqn.primitive.name
        vmaps = _vmaps(eqn)
        if eqn.primitive is tag_p or name == "name":
            by_tag = eqn.primitive is tag_p
            yield replace(
                around,
                given=eqn.params["name"],
                name=eqn.params["name"],
                where=eqn.params["where"] if by_tag else "",
                by_tag=by_tag,
                path=here,
                aval=eqn.outvars[0].aval,
                axes=eqn.params["axes"] if by_tag else (),
                nest=vmaps,
            )
        for j, body in enumerate(_bodies(eqn)):
            within = replace(
                around,
                unsupported=around.unsupported or unsupported(eqn, j, in_shard_map=in_shard_map),
                in_branch=around.in_branch or (name in CONTROLS and CONTROLS[name].branches),
                in_while=around.in_while or name == "while",
                manual=around.manual | manual(eqn),
            )
            for site in _find(opened(body)[0], (*here, j), within, in_shard_map=in_shard_map or name == "shard_map"):
                lead = CONTROLS[name].lead(eqn, site.aval) if name in CONTROLS else ()
                yield replace(site, lead=lead + site.lead, nest=vmaps + ("lead",) * len(lead) + site.nest)


def _vmaps(eqn: Eqn) -> tuple[str, ...]:
    """A "vmap" for each vmap that the equation was traced under, inside the program it stands in."""
    return tuple("vmap" for entry in eqn.source_info.name_stack.stack if _is_vmap(entry))


def _is_vmap(entry: Any) -> bool:
    return type(entry).__name__ == "Transform" and entry.name == "vmap"


def _bodies(eqn: Eqn) -> Sequence[Any]:
    control = CONTROLS.get(eqn.primitive.name)
    return control.bodies(eqn) if control else list(jaxprs_in_params(eqn.params))


def _flow(jaxpr: Any, path: Path, states: dict[Path, str], live_results: Live) -> tuple[Live, dict[int, list[Path]]]:
    """Which arguments of a program reach the output, and the state of each tag in it.

    Returns:
      Whether each argument reaches the output; index of an argument -> tags on it whose results do not.
    """
    live = {v for v, is_live in zip(jaxpr.outvars, live_results, strict=True) if is_live and not isinstance(v, Literal)}
    watched: list[tuple[Any, Path]] = []  # tags whose results do not reach the output, with what they are on
    for i in reversed(range(len(jaxpr.eqns))):
        eqn, here = jaxpr.eqns[i], (*path, i)
        is_live = [v in live for v in eqn.outvars]
        if eqn.primitive is tag_p or eqn.primitive.name == "name":
            states.pop(here, None)
            if not any(is_live):
                watched.append((eqn.invars[0], here))
        used = _flow_through(eqn, here, states, is_live, watched)
        live.update(v for v, use in zip(eqn.invars, used, strict=True) if use and not isinstance(v, Literal))
    unused: dict[int, list[Path]] = {}
    for operand, tag_path in watched:
        if isinstance(operand, Literal):
            states[tag_path] = "dead"
        elif operand in live:
            states[tag_path] = "bypassed"
        else:
            states[tag_path] = "dead"
            if operand in jaxpr.invars:
                unused.setdefault(jaxpr.invars.index(operand), []).append(tag_path)
    return [v in live for v in jaxpr.invars], unused


def _flow_through(
    eqn: Eqn, here: Path, states: dict[Path, str], is_live: Live, watched: list[tuple[Any, Path]]
) -> Live:
    """Which operands of an equation reach the output, given which results do."""
    control = CONTROLS.get(eqn.primitive.name)
    if control is None:
        return [any(is_live)] * len(eqn.invars)
    found: list[dict[int, list[Path]]] = [{} for _ in control.bodies(eqn)]

    def flow(j: int, body: Any) -> Flow:
        def run(live: Live) -> Live:
            operands, found[j] = _flow(opened(body)[0], (*here, j), states, live)
            return operands

        return run

    used = control.liveness(eqn, is_live, [flow(j, body) for j, body in enumerate(control.bodies(eqn))])
    if control.operand is not None:
        for by_argument in found:
            for k, paths in by_argument.items():
                watched.extend((eqn.invars[control.operand + k], path) for path in paths)
    return used


# Operations that move numbers and compute none: no step of a chain rule.
_MOVES = {"broadcast_in_dim", "convert_element_type", "copy", "copy_p", "reshape", "squeeze", "expand_dims"}


def _operations(jaxpr: Any, path: Path) -> Iterator[Site]:
    """Every floating-point result of an operation, in program order; a jit's body stands in its place."""
    for i, eqn in enumerate(jaxpr.eqns):
        name, here = eqn.primitive.name, (*path, i)
        if name == "jit":
            yield from _operations(opened(eqn.params["jaxpr"])[0], (*here, 0))
        elif name not in _MOVES:
            for k, var in enumerate(eqn.outvars):
                if jnp.issubdtype(var.aval.dtype, jnp.inexact):
                    given = str(eqn.params.get("name", name)) if name.startswith("custom_") else name
                    yield Site(given, given, "", True, here, var.aval, result=k)


def _origin(jaxpr: Any, var: Any, path: Path) -> tuple[Path, int] | None:
    """Where a variable is computed, calls of `jit` and `checkpoint` looked into; None for an argument or literal."""
    for i, eqn in enumerate(jaxpr.eqns):
        for k, result in enumerate(eqn.outvars):
            if result is var:
                if eqn.primitive.name not in ("jit", "remat2"):
                    return (*path, i), k
                body = opened(eqn.params["jaxpr"])[0]
                return _origin(body, body.outvars[k], (*path, i, 0))
    return None


def dependence(fun: Callable[..., Any], *args: Any) -> list[set[int]]:
    """For each array that `fun(*args)` returns, which of the arrays in `args` it depends on."""
    jaxpr, _ = opened(jax.make_jaxpr(fun)(*args))
    return [
        {i for i in range(len(jaxpr.invars)) if bits >> i & 1}
        for bits in _dependence(jaxpr, [1 << i for i in range(len(jaxpr.invars))])
    ]


def _dependence(jaxpr: Any, arguments: Sequence[int]) -> list[int]:
    """The arguments that each result depends on, as the bits of an integer, given those of each argument."""
    bits: dict[Any, int] = dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> int:
        return 0 if isinstance(atom, Literal) else bits.get(atom, 0)

    for eqn in jaxpr.eqns:
        operands = [read(atom) for atom in eqn.invars]
        if not any(operands):
            continue
        if eqn.primitive.name in ("jit", "remat2"):
            results = _dependence(opened(eqn.params["jaxpr"])[0], operands)
        else:
            results = [_union(_used(eqn, k), operands) for k in range(len(eqn.outvars))]
        bits.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _used(eqn: Eqn, result: int) -> Live:
    """Which operands one result of an equation depends on."""
    return _flow_through(eqn, (), {}, [k == result for k in range(len(eqn.outvars))], [])


def _union(used: Live, operands: Sequence[int]) -> int:
    total = 0
    for use, operand in zip(used, operands, strict=True):
        total |= operand if use else 0
    return total


def _chosen(sites: Sequence[Site], names: Sequence[str] | None) -> Sequence[Site]:
    """The sites that `names` asks for: exact names or globs, with or without the number; all tags if None."""
    if names is None:
        tags = _named([site for site in sites if site.by_tag])
        if not tags:
            raise TagError(
                "the function has no tag, so there is nothing to retain. Name its intermediates, "
                '`z = jaxgrad.tag(z, "z")`, or give `names` of its checkpoint_names, or names=() for none.'
            )
        return tags
    every = _named(sites)
    matches = {pattern: [site for site in every if _matches(site, pattern)] for pattern in names}
    for pattern, matched in matches.items():
        if not matched:
            raise TagError(_no_such_name(pattern, [site.name for site in every]))
    return [site for site in every if any(site in matched for matched in matches.values())]


def _matches(site: Site, pattern: str) -> bool:
    return pattern in (site.name, site.given) or fnmatchcase(site.name, pattern) or fnmatchcase(site.given, pattern)


def _no_such_name(pattern: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(pattern, known, n=1, cutoff=0)
    hint = f' Did you mean "{near[0]}"? There are: {", ".join(known)}.' if near else " The function has no tag at all."
    return f'`names` asks for "{pattern}", and nothing is tagged so.{hint}'


def _named(sites: Sequence[Site]) -> list[Site]:
    """Gives each site a name of its own: its given name, numbered where that is used more than once."""
    uses = Counter(site.given for site in sites)
    numbers: Counter[str] = Counter()
    named: dict[str, Site] = {}
    for site in sites:
        name = f"{site.given}[{numbers[site.given]}]" if uses[site.given] > 1 else site.given
        numbers[site.given] += 1
        if name in named:
            other = named[name]
            raise TagError(
                f'two intermediates would be named "{name}": {other.label} and tag "{site.given}" ({site.where}). '
                "Rename one of them."
            )
        named[name] = replace(site, name=name)
    return list(named.values())


def _run(
    jaxpr: Any,
    consts: Sequence[Any],
    arguments: Sequence[Any],
    probes: Probes,
    path: Path,
    inside: dict[Path, dict[int, Site]],
    join: Join,
    wide: Wide | None = None,
) -> tuple[list[Any], Found]:
    """Evaluates a program equation by equation; `inside` has the sites at and within each equation."""
    if wide:
        consts, arguments = [wide.cast(const) for const in consts], [wide.cast(argument) for argument in arguments]
    env: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))
    values: dict[int, Any] = {}
    reached: dict[int, Any] = {}
    for i, eqn in enumerate(jaxpr.eqns):
        here = (*path, i)
        operands = [_read(env, atom, wide) for atom in eqn.invars]
        sites = inside.get(here, {})
        if not sites and not wide:
            results = bind(eqn, operands)
        elif eqn.primitive.name in CONTROLS and all(site.path != here for site in sites.values()):
            own = {site: probes[site] for site in sites if site in probes}
            avals = {site: sites[site].aval for site in sites}
            rebuild = CONTROLS[eqn.primitive.name].rebuild
            bodies = _rebuilt(eqn, here, inside, join, wide)
            results, (new_values, new_reached) = rebuild(eqn, operands, bodies, own, avals)
            values |= new_values
            reached |= new_reached
        elif not sites:
            assert wide
            results = _bind_wide(eqn, operands, wide)
        else:
            results = list(operands if wide else bind(eqn, operands))
            for site, at in sites.items():
                values[site] = _array(results[at.result])
                if site in probes:
                    join_here = operator.add if wide else join
                    results[at.result] = join_here(values[site], probes[site])
        env.update(zip(eqn.outvars, results, strict=True))
    return [_read(env, atom, wide) for atom in jaxpr.outvars], (values, reached)


def _rebuilt(eqn: Eqn, here: Path, inside: dict[Path, dict[int, Site]], join: Join, wide: Wide | None) -> list[Body]:
    def body(j: int, jaxpr: Any) -> Body:
        def run(operands: Sequence[Any], probes: Probes) -> tuple[list[Any], Found]:
            return _run(*opened(jaxpr), operands, probes, (*here, j), inside, join, wide)

        return run

    return [body(j, jaxpr) for j, jaxpr in enumerate(CONTROLS[eqn.primitive.name].bodies(eqn))]


def _read(env: dict[Any, Any], atom: Any, wide: Wide | None = None) -> Any:
    if not isinstance(atom, Literal):
        return env[atom]
    # A constant of the program is what it was when rounded to the program's dtype.
    return wide.cast(jnp.asarray(atom.val, _dtype(atom))) if wide else atom.val


def _dtype(atom: Any) -> Any:
    return atom.aval.dtype


def _array(result: Any) -> Any:
    """A literal of the program as an array; any other result as it is."""
    return result if isinstance(result, jax.Array) else jnp.asarray(result)


def bind(eqn: Eqn, operands: Sequence[Any]) -> Sequence[Any]:
    """The results of an equation on other operands."""
    with eqn.ctx.manager:
        results = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
    return results if eqn.primitive.multiple_results else [results]


def _bind_wide(eqn: Eqn, operands: Sequence[Any], wide: Wide) -> Sequence[Any]:
    """An operation on wide numbers; one that depends on its dtype is done in that, and its results are cast."""
    if eqn.primitive.name in ("custom_jvp_call", "custom_vjp_call"):
        return _custom_wide(eqn, operands, wide)
    in_its_own = wide.keeps_dtype(eqn) or bool(list(jaxprs_in_params(eqn.params)))
    if in_its_own:
        operands = [wide.uncast(x, v.aval) for x, v in zip(operands, eqn.invars, strict=True)]
        return [wide.cast(result) for result in bind(eqn, operands)]
    with eqn.ctx.manager:
        return wide.apply(eqn, operands)


def _custom_wide(eqn: Eqn, operands: Sequence[Any], wide: Wide) -> Sequence[Any]:
    """A function with a derivative rule of its own: its body, and its rule, each evaluated on wide numbers."""
    body, *_ = jaxprs_in_params(eqn.params)
    smooth = [i for i, v in enumerate(eqn.invars) if jnp.issubdtype(v.aval.dtype, jnp.inexact)]

    @jax.custom_vjp
    def call(*operands: Any) -> list[Any]:
        return _run(*opened(body), operands, {}, (), {}, _probed, wide)[0]

    def rule(operands: Sequence[Any], cotangents: Sequence[Any]) -> Any:
        def of_smooth(*values: Any) -> Any:
            given = dict(zip(smooth, values, strict=True))
            return bind(eqn, [given.get(i, operand) for i, operand in enumerate(operands)])

        _, pullback = jax.vjp(of_smooth, *(operands[i] for i in smooth))
        return pullback(list(cotangents))

    def backward(operands: Sequence[Any], cotangents: Sequence[Any]) -> tuple[Any, ...]:
        shapes = [[jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in vs] for vs in (eqn.invars, eqn.outvars)]
        jaxpr, consts = opened(jax.make_jaxpr(rule)(*shapes))
        bars, _ = _run(jaxpr, consts, [*operands, *cotangents], {}, (), {}, _probed, wide)
        by_operand = dict(zip(smooth, bars, strict=True))
        return tuple(by_operand.get(i) for i in range(len(operands)))

    call.defvjp(lambda *operands: (call(*operands), operands), backward)
    return call(*operands)


@jax.custom_jvp
def _probed(value: Any, probe: Any) -> Any:
    """`value`, and for derivatives `value + probe`; a sum would turn -0.0 into 0.0, and cost one."""
    return value


@_probed.defjvp
def _probed_jvp(primals: Any, tangents: Any) -> Any:
    value_dot, probe_dot = tangents
    return _probed(*primals), value_dot + probe_dot


def _cut(value: Any, probe: Any) -> Any:
    """The probe in place of the value: nothing flows back from here to what the value was made of."""
    return probe
