"""The chain rule of a function on the page, each local derivative with its number."""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_flatten

from jaxgrad._errors import InputError
from jaxgrad._graph.explain import Explanation, explain
from jaxgrad._graph.grading.answer import Answer
from jaxgrad._graph.grading.grade import Asked, grade
from jaxgrad._graph.grading.mark import Grade
from jaxgrad._graph.graph import Edge, Graph, Node
from jaxgrad._graph.nonfinite import Nonfinite, first_nonfinite
from jaxgrad._graph.summary import summary
from jaxgrad._ledger.build import read_graph
from jaxgrad._ledger.plan import LedgerPlan, plan_ledger
from jaxgrad._retain.arguments import differentiable, narrowed
from jaxgrad._retain.selection import name_patterns
from jaxgrad._types import Leaf, P


@dataclass(frozen=True, eq=False)
class Ledger:
    r"""A computation at one input: every node's value and gradient, every edge's local derivative.

    For $y = f(a)$ with named intermediates $v_i$ an edge from $s$ to $t$ carries the local derivative
    $\partial t / \partial s$, every other node held fixed, and its contribution $\bar t \, \partial t / \partial s$.
    The contributions of the edges out of a node sum to its gradient: that is the chain rule.

    Attributes:
      graph: the nodes and edges as plain data.
      elsewhere: makes the graph of the same function at another input: at 1 a nearby one, at -1 one of the other sign,
        at a small number s the same input moved by s.
      aux: with `has_aux`, what the function returned beside its output.
    """

    graph: Graph
    elsewhere: Callable[[float], Graph]
    aux: Any = None

    @property
    def nodes(self) -> Mapping[str, Node]:
        """Name -> node, in program order: arguments, intermediates, the output. Any other name is an InputError."""
        return self.graph.nodes

    @property
    def edges(self) -> Mapping[tuple[str, str], Edge]:
        """(source, target) -> edge. Any other pair is an InputError."""
        return self.graph.edges

    @property
    def output(self) -> str:
        """Name of the node that is the output."""
        return self.graph.output

    @property
    def first_nonfinite(self) -> Nonfinite | None:
        """Where NaN or infinity begins: the first value in program order, or else the first gradient from behind.

        Returns:
          Its label, as "log" or "log.grad", the node whose operation makes it, and that one's file and line; None where
          every number is finite. Of a function without tags every operation is a node, and so it is the operation.

        Example:
          >>> found = ledger(lambda x: 2 * jnp.sqrt(x - 1))(1.0).first_nonfinite
          >>> print(found.label, found.operation)
          sub.grad sqrt
        """
        return first_nonfinite(self.graph)

    def text(self, *, style: str = "unicode") -> str:
        """A table of its nodes and the chain rule of its arguments: what `print` shows.

        Args:
          style: "unicode" or "plain", which is ASCII but for the nodes' own names.
        """
        return summary(self.graph, style=style)

    def __str__(self) -> str:
        return self.text()

    def explain(self, name: str, *, style: str = "unicode") -> Explanation:
        r"""The chain rule of one node's gradient, in symbols and in numbers.

        Every path to the output and their sum. Where a node feeds itself (a scan), or more than 8 paths lead to the
        output, it is one step: the gradients of the nodes that are computed from it, times the local derivatives.
        Every factor holds the other nodes fixed. Below stands what each node on the way is computed by, and the
        local derivative that follows from it.

        Args:
          name: the node.
          style: "unicode", "plain" (ASCII) or "latex" (what goes inside an `align*`).

        Returns:
          Text of one or more lines; as the last value of a notebook's cell it is set as mathematics.

        Raises:
          InputError: there is no such node, or no such style.

        Example:
          >>> from jaxgrad import neuron
          >>> found = ledger(neuron.forward)(jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1]))
          >>> print(found.explain("w1"))
          df/dw1 = ∂f/∂h · ∂h/∂k · ∂k/∂z · ∂z/∂w1 = -0.25 · 1 · -1 · 2 = 0.5
            f = 1/h                     ∂f/∂h = -1/h**2 = -0.25
            h = 1 + k                   ∂h/∂k = 1
            k = exp(-z)                 ∂k/∂z = -exp(-z) = -1
            z = w0*x0 + w1*x1 + w2      ∂z/∂w1 = x1 = 2
        """
        return Explanation(explain(self.graph, name, style=style), explain(self.graph, name, style="latex"))

    def save(self, path: str | PathLike[str]) -> None:
        """Draws it into a file, in the format of its ending; whole or not at all.

        Args:
          path: .svg and .html are in light or dark as their viewer is; .png needs matplotlib
            (`pip install 'jaxgrad[draw]'`); .dot and .mmd (Mermaid) are text for other tools to draw; .json has every
            number in full. In .svg, .png and .html, of more than 40 nodes those that repeat are one box.

        Raises:
          InputError: any other ending, or the file cannot be written.
        """
        from jaxgrad._graph.draw.save import save  # drawing is loaded by those who draw

        save(self.graph, path)

    def _repr_html_(self) -> str:
        from jaxgrad._graph.draw.svg import inline

        return inline(self.graph)

    def __repr__(self) -> str:
        return f"Ledger({len(self.nodes)} nodes, {len(self.edges)} edges, output {self.output!r})"

    def grade(self, answers: Mapping[Asked, Answer], *, rtol: float | None = None, hint: bool = False) -> Grade:
        r"""Marks a learner's derivatives: local ones by their edge, gradients along every path by their node.

        An answer is a number, an array, or a function whose parameters name nodes or arguments (`lambda z: ...`,
        `lambda h, k: ...`; a single parameter of any other name is the source, and one with a default is the
        learner's own). A typed number is right to the digits typed. A function that is right here is tried at a
        nearby input too, where a factor that is 1 here is no longer 1, and at one of the other sign, for kinks. At a
        kink either side's slope is right.

        Args:
          answers: (source, target) -> local derivative $\partial t / \partial s$, or name -> gradient of the output;
            an argument whose elements are nodes goes by its own name too.
          rtol: relative error that still counts as right; None for the digits typed, and for functions the square
            root of the dtype's epsilon.
          hint: say of a wrong answer where to look again, and not what is right.

        Returns:
          A `Grade`: `ok`, `wrong`, `marks`; printed, it names the wrong answers and, where one fits, the mistake.

        Raises:
          InputError: there is no such edge or node, or the answer is no number of its shape.

        Example:
          >>> from jaxgrad import neuron
          >>> found = ledger(neuron.forward)(jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1]))
          >>> print(found.grade({("z", "k"): lambda z: jnp.exp(-z), ("h", "f"): lambda h: -1 / h**2}))
          dk/dz = 1 is wrong, it is -1: a minus is missing
          df/dh = -0.25: right
          1 of 2 factors are right.
        """
        return grade(self.graph, answers, self.elsewhere, rtol=rtol, hint=hint)


def ledger(
    fun: Callable[P, Any],
    names: str | Iterable[str] | None = None,
    *,
    has_aux: bool = False,
    split: int | str | Iterable[str] | None = None,
) -> Callable[P, Ledger]:
    r"""Transforms `fun` to return its ledger: values, gradients, and every local derivative between them.

    Nodes are the arguments (a scalar or an array has its parameter's name; where all vectors have 16 elements or
    fewer together, each of those is a node, `w0, w1, ...`), the tags, and the output, which has its tag's name or
    "output". A function without tags gets one node for each operation, named as NumPy names it: `mul[0]`, `matmul`.
    A tag in `scan` or `vmap` is one node of stacked values; it may have an edge to itself.

    The program is cut at its nodes: $G(a, v) = (t_1, \dots, t_m, y)$ computes every node from those before it, all
    of them independent, so that its Jacobian holds exactly the local derivatives. They are kept between nodes of
    up to 128 elements (fewer if there are very many); past that an edge has its contribution, and a note.

    It compiles once for arguments of the same shapes and dtypes; as `jax.jit`, it does not see a change in what
    `fun` reads from outside. Arguments that are not floating-point are constants of the compiled program.

    Args:
      fun: pure function of pytrees that returns a real scalar.
      names: names or globs of the tags that become nodes, None for all: as for `retain_grads`.
      has_aux: does `fun` return a pair of the output and auxiliary data?
      split: which arguments' elements are nodes of their own: those of these names (`"w"`, `"p['b']"`), or arrays of
        up to so many elements (0 for none); None for vectors, where they are few in all.

    Returns:
      A function of the same arguments that returns a `Ledger`. Keyword arguments are passed on and are no nodes.

    Raises:
      InputError: an argument is traced: a ledger is for reading, take it outside of jit, vmap and grad. Or it is
        sharded over an explicit mesh.
      TagError, OutputError: as `retain_grads`.

    Example:
      >>> from jaxgrad import neuron
      >>> found = ledger(neuron.forward)(jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1]))
      >>> print(list(found.nodes))
      ['x0', 'x1', 'w0', 'w1', 'w2', 'z', 'k', 'h', 'f']
      >>> print(found.edges["h", "f"].local, found.edges["z", "k"].local, found.nodes["w1"].grad)
      -0.25 -1.0 0.5
    """
    patterns = name_patterns(names)
    apart = split if split is None or isinstance(split, int) else (split,) if isinstance(split, str) else tuple(split)
    plans: dict[Any, LedgerPlan] = {}

    @functools.wraps(fun, assigned=("__module__", "__name__", "__qualname__"), updated=())
    def read(*args: Any, **kwargs: Any) -> Ledger:
        leaves, structure = tree_flatten((args, kwargs))
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            raise InputError(
                "an argument of a ledger is traced; expected concrete arrays, for a ledger is for reading. Take it "
                "outside of jit, vmap and grad, or use retain_grads there."
            )
        varied = differentiable(args, None)
        if any(any(jax.typeof(leaves[i]).sharding.spec) for i in varied):
            raise InputError(
                "an argument of a ledger is sharded over an explicit mesh, so that its type says where its parts are; "
                "expected arrays that are whole. Give jax.device_get(argument), or use retain_grads."
            )
        rest = [leaf for i, leaf in enumerate(leaves) if i not in set(varied)]
        types = tuple(_type(leaves[i]) for i in varied)
        key = (structure, tuple(varied), types, tuple(narrowed(args, varied)), tuple(map(_constant, rest)))
        if key not in plans:
            plans[key] = plan_ledger(fun, args, kwargs, varied, patterns, apart, has_aux=has_aux)
        plan, varied_leaves = plans[key], [leaves[i] for i in varied]
        graph, aux = read_graph(plan, varied_leaves)
        return Ledger(graph, lambda where: read_graph(plan, [_moved(leaf, where) for leaf in varied_leaves])[0], aux)

    return read


def _moved(leaf: Leaf, where: float) -> Leaf:
    """Another input: at 1 or -1 one at which nothing is 0, 1 or equal to another by chance; else moved by `where`."""
    rng = np.random.default_rng(1)
    array = np.asarray(leaf)
    if abs(where) == 1 and array.size > 1 and np.all(array >= 0) and np.isclose(np.sum(array), 1):
        moved = np.roll(array, 1)  # probabilities, or a one-hot: they are so elsewhere too
    elif abs(where) == 1:
        moved = where * (array * rng.uniform(0.75, 0.95, array.shape) + rng.uniform(0.05, 0.15, array.shape))
    else:
        moved = array + where * (1 + np.abs(array)) * rng.uniform(0.5, 1.0, array.shape)
    if isinstance(leaf, float):
        return float(moved)
    return jnp.asarray(moved, jnp.result_type(leaf))


def _type(leaf: Leaf) -> tuple[Any, ...]:
    return np.shape(leaf), jnp.result_type(leaf), getattr(jax.typeof(leaf), "weak_type", False)


def _constant(leaf: Leaf) -> Any:
    """What tells a constant of one compiled program from that of another."""
    if isinstance(leaf, (np.ndarray, np.generic)) or (
        isinstance(leaf, jax.Array) and not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)
    ):
        return np.shape(leaf), str(leaf.dtype), np.asarray(leaf).tobytes()
    if isinstance(leaf, (bool, int, float, complex, str, bytes)):
        return type(leaf), repr(leaf)
    return _ById(leaf)


@dataclass(frozen=True, eq=False)
class _ById:
    """Any other constant: only itself is the same. It is kept alive, so that its `id` stays its own."""

    leaf: Any

    def __hash__(self) -> int:
        return id(self.leaf)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and self.leaf is other.leaf
