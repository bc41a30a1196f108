"""The ledger: every local derivative against one made by hand, and the chain rule as a law on every ledger made."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import PartitionSpec as P

from helpers.document import PRINTED
from jaxgrad import InputError, Ledger, OutputError, TagError, ledger, neuron, reference, retain_grads, tag
from jaxgrad._program.quick_jit import quick_jit

X, W = jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1])


def assert_chain_rule(found):
    """The contributions of the edges out of each node sum to its gradient, which was found without them."""
    for name, node in found.nodes.items():
        if node.grad is None:
            assert node.note
            continue
        assert node.grad.shape == node.value.shape
        assert node.grad.dtype == node.value.dtype
        shares = [edge.contribution for edge in found.edges.values() if edge.source == name]
        total = sum(shares, start=np.ones_like(node.value) if name == found.output else np.zeros_like(node.value))
        # The sum is taken in another order than JAX's own: a few float32 roundings of its largest summand.
        size = max([1.0, *(float(np.max(abs(share), initial=0)) for share in shares)])
        # Float32 sums, each in an order of its own; of what cancels, a part of the largest term.
        np.testing.assert_allclose(total, node.grad, rtol=1e-5, atol=2e-6 * size)
    for (source, target), edge in found.edges.items():
        assert (edge.source, edge.target) == (source, target)
        assert (edge.local is None) == bool(edge.note)
        assert edge.contribution.shape == found.nodes[source].value.shape
        if edge.local is not None:
            assert np.shape(edge.local) == found.nodes[target].value.shape + found.nodes[source].value.shape


def of(fun, *args, **options):
    found = ledger(fun, **options)(*args)
    assert isinstance(found, Ledger)
    assert_chain_rule(found)
    return found


def locals_of(found):
    return {ends: np.asarray(edge.local).tolist() for ends, edge in found.edges.items()}


# The document


def quantity(found, name):
    """A number of the document by its name there: z, df/dw0, dk/dz."""
    if "/" not in name:
        return found.nodes[name].value
    target, source = re.fullmatch(r"d(\w+)/d(\w+)", name).groups()
    return found.nodes[source].grad if target == found.output else found.edges[source, target].local


def test_part_1_of_the_document_comes_out_to_the_bit():
    found = of(neuron.forward, X, W)
    numbers = [number for number in reference.load().numbers if number.part == 1]
    assert len(numbers) == len([entry for entry in PRINTED if entry[0] == 1]) == 12
    for number in numbers:
        assert str(quantity(found, number.quantity).item()) == number.printed, number.quantity


def test_every_local_derivative_product_and_gradient_is_that_of_the_chain_rule_by_hand():
    found, by_hand = of(neuron.forward, X, W), neuron.chain_rule(X, W)
    want = {name: value for name, value in neuron.quantities(by_hand).items() if "/" in name}
    assert len(want) == 3 + 5 + 2 + 5
    for name, value in want.items():
        assert quantity(found, name) == value, name
    assert found.edges["h", "f"].local == by_hand.aux["df/dh"]
    for (source, target), edge in found.edges.items():
        assert edge.contribution == found.nodes[target].grad * edge.local == found.nodes[source].grad


def test_nodes_are_in_program_order_and_the_output_has_its_tags_name():
    found = of(neuron.forward, X, W)
    assert list(found.nodes) == ["x0", "x1", "w0", "w1", "w2", "z", "k", "h", "f"]
    assert [node.kind for node in found.nodes.values()] == ["argument"] * 5 + ["tag"] * 4
    assert found.output == "f"
    assert list(found.edges) == [(a, "z") for a in ("x0", "x1", "w0", "w1", "w2")] + [
        ("z", "k"),
        ("k", "h"),
        ("h", "f"),
    ]


# Shapes of graphs


def test_fan_out_sums_over_its_edges():
    def fun(x):
        a = tag(x * x, "a")
        b, c = tag(3 * a, "b"), tag(jnp.sin(a), "c")
        return b * c

    found = of(fun, 2.0)
    sin, cos = np.sin(np.float32(4)), np.cos(np.float32(4))
    assert locals_of(found) == pytest.approx(
        {("x", "a"): 4, ("a", "b"): 3, ("a", "c"): cos, ("b", "output"): sin, ("c", "output"): 12}, rel=1e-6
    )
    assert found.nodes["a"].grad == pytest.approx(3 * sin + 12 * cos, rel=1e-6)  # float32


def test_a_skipped_connection_is_an_edge_of_its_own():
    def fun(x):
        a = tag(2 * x, "a")
        b = tag(a * a, "b")
        return tag(b + a + x, "y")

    found = of(fun, 3.0)
    assert locals_of(found) == {
        ("x", "a"): 2, ("a", "b"): 12, ("x", "y"): 1, ("a", "y"): 1, ("b", "y"): 1
    }  # fmt: skip
    assert found.edges["x", "y"].contribution == 1
    assert found.edges["x", "a"].contribution == 26
    assert found.nodes["x"].grad == 27


def test_a_vector_has_its_jacobian():
    m = np.float32([[1, 2, 3], [4, 5, 6]])

    def fun(v):
        u = tag(m @ (v * v), "u")
        return tag(jnp.sum(u**3), "y")

    big = jnp.arange(1.0, 20.0)
    found = of(lambda v: fun(v[:3]), big)
    v = np.float32([1, 2, 3])
    local = found.edges["v", "u"].local
    assert local.shape == (2, 19)
    np.testing.assert_array_equal(local, np.pad(m * 2 * v, ((0, 0), (0, 16))))
    np.testing.assert_array_equal(found.edges["u", "y"].local, 3 * (m @ v**2) ** 2)


def test_the_elements_of_a_small_array_are_nodes():
    def fun(w):
        a = tag(w[0] * w[1], "a")
        b = tag(jnp.stack([w[2], a]), "b")
        return jnp.sum(b)

    found = of(fun, jnp.array([2.0, 0.0, 5.0]))
    assert list(found.nodes) == ["w0", "w1", "w2", "a", "b", "output"]
    assert locals_of(found) == {
        ("w0", "a"): 0, ("w1", "a"): 2, ("w2", "b"): [1, 0], ("a", "b"): [0, 1], ("b", "output"): [1, 1]
    }  # fmt: skip


def test_an_edge_is_there_though_its_derivative_is_0_at_this_input():
    found = of(neuron.forward, jnp.zeros(2), W)
    assert found.edges["w0", "z"].local == 0
    assert found.edges["w1", "z"].contribution == 0
    assert ("a", "y") in of(lambda x: tag(jax.nn.relu(tag(x, "a")), "y"), -1.0).edges


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (
            (jnp.ones((2, 2)), {"b": jnp.ones(1), "c": 1.0}),
            ["a", "p['b'][0]", "p['c']"],
        ),
        ((jnp.ones((5, 5)), {"b": jnp.ones(17)}), ["a", "p['b']"]),
        ((1.0, {}), ["a"]),
    ],
)  # fmt: skip
def test_arguments_are_named_after_their_parameters(args, names):
    def fun(a, p):
        return tag(jnp.sum(a) + sum(jnp.sum(leaf) for leaf in jax.tree.leaves(p)), "y")

    assert list(of(fun, *args).nodes) == [*names, "y"]


@pytest.mark.parametrize(
    ("split", "names"),
    [
        (None, ["m", "v0", "v1", "y"]),
        (0, ["m", "v", "y"]),
        (4, ["m[0,0]", "m[0,1]", "m[1,0]", "m[1,1]", "v0", "v1", "y"]),
        ("v", ["m", "v0", "v1", "y"]),
        (["m"], ["m[0,0]", "m[0,1]", "m[1,0]", "m[1,1]", "v", "y"]),
    ],
)
def test_split_says_whose_elements_are_nodes(split, names):
    found = of(lambda m, v: tag(jnp.sum(m @ v), "y"), jnp.ones((2, 2)), jnp.ones(2), split=split)
    assert list(found.nodes) == names


def test_the_elements_of_vectors_are_nodes_where_they_are_few_in_all():
    def fun(a, b):
        return tag(jnp.sum(a) + jnp.sum(b), "y")

    assert len(of(fun, jnp.ones(8), jnp.ones(8)).nodes) == 17
    assert list(of(fun, jnp.ones(8), jnp.ones(9)).nodes) == ["a", "b", "y"]


def test_split_of_a_name_that_is_no_array_is_refused():
    with pytest.raises(InputError, match=r"`split` names 'w', which is no array. Arrays: v."):
        ledger(lambda v, c: tag(jnp.sum(v) * c, "y"), split="w")(jnp.ones(2), 1.0)


def test_no_two_nodes_share_a_name():
    def fun(a, a0, output, *rest):
        a = tag(jnp.sum(a) * a0 * output, "a")
        return a * tag(rest[0] * rest[1], "output")

    found = of(fun, jnp.ones(2), 2.0, 3.0, 4.0, 5.0)
    assert list(found.nodes) == [
        "a0", "a1", "a0 (argument)", "output (argument)", "rest[0]", "rest[1]", "a", "output", "output (result)"
    ]  # fmt: skip


def test_a_large_node_has_its_contribution_and_says_why_no_local_derivative():
    w = jnp.linspace(-1, 1, 40 * 50).reshape(40, 50)

    def fun(w, x):
        h = tag(jnp.tanh(w @ x), "h")
        return tag(jnp.sum(h * h), "y")

    found = of(fun, w, jnp.ones(50))
    edge = found.edges["w", "h"]
    assert edge.local is None
    assert edge.note == (
        "the local derivative would be 40 by 2000 and is not kept; the contribution is pulled back"
    )  # fmt: skip
    np.testing.assert_array_equal(edge.contribution, found.nodes["w"].grad)
    assert found.edges["x", "h"].local.shape == (40, 50)


# Control flow, and what has no gradient


def test_a_tag_in_scan_is_one_node_with_an_edge_to_itself():
    def fun(w, xs):
        def step(h, x):
            h = tag(w * h + x, "h")
            return h, None

        return lax.scan(step, 1.0, xs)[0]

    found = of(fun, 0.5, jnp.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(found.nodes["h"].value, [1.5, 2.75, 4.375])
    np.testing.assert_array_equal(found.edges["h", "h"].local, [[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0]])
    np.testing.assert_array_equal(found.edges["w", "h"].local, [1, 1.5, 2.75])
    np.testing.assert_array_equal(found.edges["xs1", "h"].local, [0, 1, 0])
    np.testing.assert_array_equal(found.edges["h", "output"].local, [0, 0, 1])
    assert found.nodes["h"].steps


@pytest.mark.parametrize("taken", [True, False])
def test_the_tags_of_both_branches_of_cond_are_nodes(taken):
    def fun(x):
        yes, no = (lambda x: tag(x * x, "yes")), (lambda x: tag(5 * x, "no"))
        return tag(3 * lax.cond(x > 0, yes, no, x), "y")

    found = of(fun, 2.0 if taken else -2.0)
    there, away = ("yes", "no") if taken else ("no", "yes")
    assert found.edges["x", there].local == (4 if taken else 5)
    assert found.edges[there, "y"].local == 3
    assert found.edges["x", away].local == found.edges[away, "y"].local == 0
    assert found.nodes[away].note == "its branch is not taken"


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint], ids=["jit", "checkpoint"])
def test_jit_and_checkpoint_change_nothing(wrap):
    found, plain = of(wrap(neuron.forward), X, W), of(neuron.forward, X, W)
    assert list(found.nodes) == list(plain.nodes)
    assert locals_of(found) == locals_of(plain)


def test_a_tag_in_vmap_has_the_batch_axis_first():
    found = of(lambda x: jnp.sum(jax.vmap(lambda v: tag(v * v, "s"), in_axes=1)(x.reshape(1, 3))), jnp.arange(3.0))
    assert found.nodes["s"].value.shape == (3, 1)
    np.testing.assert_array_equal(found.edges["x1", "s"].local, [[0], [2], [0]])


def test_what_has_no_gradient_is_a_node_without_edges():
    def fun(x):
        tag(x * 2, "dead")
        n = tag(jnp.int32(3), "n")
        return x * n

    found = ledger(fun)(2.0)
    assert found.nodes["n"].grad is None
    assert found.nodes["n"].note == "int32 has no gradient"
    assert found.nodes["dead"].note == "does not reach the output"
    assert list(found.edges) == [("x", "output")]


def test_complex_intermediates_have_contributions():
    found = ledger(lambda x: tag(jnp.abs(tag(x * (1 + 2j), "c")) ** 2, "y"))(3.0)
    assert found.edges["x", "c"].local is None
    assert found.edges["x", "c"].contribution == pytest.approx(30, rel=1e-5)  # y = 5 x^2


def test_names_select(dtype):
    x, w = (np.asarray(a).astype(dtype) for a in (X, W))
    found = of(neuron.forward, x, w, names=["z", "f"])
    assert list(found.nodes)[-2:] == ["z", "f"]
    want = quick_jit(neuron.chain_rule)(x, w).grads["z"]
    # A few roundings apart: the factors in between are multiplied in another order.
    assert found.edges["z", "f"].local == pytest.approx(float(want), rel=4 * float(jnp.finfo(dtype).eps))
    assert found.edges["z", "f"].local.dtype == dtype


# A function with no tags


def test_a_function_without_tags_has_a_node_for_each_operation():
    found = of(lambda a, b: jnp.sin(a * b) * b + 0 * jnp.floor(a), 2.0, 3.0)
    assert found.output == list(found.nodes)[-1]
    assert {"a", "b", "mul[0]", "sin", "mul[1]"} <= set(found.nodes)
    assert found.edges["a", "mul[0]"].local == 3
    assert found.edges["sin", "mul[1]"].local == 3
    assert found.edges["mul[0]", "sin"].local == pytest.approx(np.cos(6), rel=1e-6)  # float32


@pytest.mark.parametrize(
    "fun",
    [
        lambda x: jnp.linalg.norm(x),
        lambda x: jnp.sum(jax.nn.softmax(x) ** 2),
        lambda x: jnp.sum(jax.nn.relu(x) * jax.nn.silu(x)),
        lambda x: lax.scan(lambda c, v: (c * v + 1, jnp.sin(c)), 1.0, x)[1].sum(),
        lambda x: jnp.sum(jnp.sort(x) * jnp.arange(4)),
        lambda x: jax.jit(lambda y: jnp.max(y) * y[0])(x),
    ],
)
def test_any_function_can_be_read_without_an_edit(fun):
    found = of(fun, jnp.array([0.5, -1.0, 2.0, 0.25]))
    assert len(found.nodes) > 5


def test_a_constant_function_has_no_edges():
    found = of(lambda x: jnp.float32(2.0), 1.0)
    assert list(found.nodes) == ["x", "output"]
    assert not found.edges


# Laws

OPERATIONS = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "sin": lambda a, b: jnp.sin(a),
    "sum": lambda a, b: jnp.sum(a) * b,
    "roll": lambda a, b: jnp.roll(a, 1) - b,
    "relu": lambda a, b: jax.nn.relu(a),
    "scan": lambda a, b: lax.scan(lambda c, _: (tag(0.5 * c + jnp.sin(b), "in_scan"), None), a, None, length=2)[0],
    "cond": lambda a, b: lax.cond(jnp.sum(a) > 0, lambda: tag(a * b, "yes"), lambda: tag(a - b, "no")),
}


@settings(max_examples=8)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(0, 9), st.integers(0, 9), st.booleans()),
        min_size=1,
        max_size=6,
    ),
    size=st.integers(1, 3),
)
def test_contributions_sum_to_gradients_in_random_programs(steps, size):
    def fun(v, s):
        pool = [v, s * jnp.ones(size)]
        for i, (name, a, b, named) in enumerate(steps):
            result = OPERATIONS[name](pool[a % len(pool)], pool[b % len(pool)])
            pool.append(tag(result, f"{name}_{i}") if named else result)
        return jnp.sum(jnp.tanh(sum(pool)))

    args = jnp.linspace(0.25, 1, size), -0.5
    assert_chain_rule(ledger(fun)(*args))


def test_a_broken_sum_is_noticed():
    found = ledger(neuron.forward)(X, W)
    edge = found.edges["z", "k"]
    object.__setattr__(edge, "contribution", edge.contribution * np.float32(1.001))
    with pytest.raises(AssertionError):
        assert_chain_rule(found)


def test_gradients_are_those_of_retain_grads():
    found, record = of(neuron.forward, X, W), quick_jit(retain_grads(neuron.forward))(X, W)
    assert {name: found.nodes[name].grad.item() for name in record.names} == {
        name: grad.item() for name, grad in record.grads.items()
    }


def test_it_is_traced_once_for_arguments_of_one_shape():
    traces = []

    def fun(x, n):
        traces.append(n)
        return tag(x * n, "y")

    read = ledger(fun)
    assert [read(float(i), 3).nodes["x"].grad for i in range(3)] == [3, 3, 3]
    once = len(traces)
    assert read(1.0, 4).nodes["x"].grad == 4
    assert len(traces) == 2 * once
    assert read(2.0, 3).nodes["y"].value == 6
    assert len(traces) == 2 * once


def test_nothing_is_compiled_again_at_other_numbers(caplog):
    compiled = "Finished XLA compilation of jit(compute)"  # the ledger's own program; arrays made here are others
    read = ledger(neuron.forward)
    read(jnp.zeros(2), W)  # local derivatives of 0 are looked at again
    with jax.log_compiles():
        read(X, W)
        read(jnp.array([0.0, 3.0]), W).elsewhere(1.0)
    assert compiled not in caplog.text
    with jax.log_compiles():
        read(jnp.zeros(1), jnp.zeros(2))
    assert compiled in caplog.text


def test_a_tag_in_shard_map_is_one_node_of_all_its_shards():
    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))

    def fun(x):
        def shard(v):
            return lax.psum(jnp.sum(tag(v * v, "s")), "i")

        return jax.shard_map(shard, mesh=mesh, in_specs=P("i"), out_specs=P())(x)

    found = of(fun, jnp.arange(4.0))
    np.testing.assert_array_equal(found.nodes["s"].value, [[0, 1], [4, 9]])
    np.testing.assert_array_equal(found.edges["x2", "s"].local, [[0, 0], [4, 0]])


# Bad input


@pytest.mark.parametrize(
    ("error", "text", "fun", "options"),
    [
        (OutputError, r"expected a real scalar", lambda x: tag(x, "y") * jnp.ones(2), {}),
        (OutputError, r"expected one real scalar", lambda x: (tag(x, "y"), x), {}),
        (TagError, r"is bypassed", lambda x: (tag(x, "y"), x)[1], {}),
        (TagError, r'asks for "q", and nothing is tagged so', lambda x: tag(x, "y"), {"names": "q"}),
        (TagError, r"expected names or globs", lambda x: tag(x, "y"), {"names": [1]}),
    ],
)
def test_what_retain_grads_refuses_is_refused(error, text, fun, options):
    with pytest.raises(error, match=text):
        ledger(fun, **options)(1.0)


def test_traced_arguments_are_refused():
    with pytest.raises(InputError, match=r"an argument of a ledger is traced; expected concrete arrays"):
        jax.jit(lambda x: ledger(neuron.forward)(x, W).nodes["z"].grad)(X)


def test_a_name_that_is_no_node_is_answered_with_the_nearest():
    with pytest.raises(
        InputError, match=r"there is no node 'w9'. Did you mean .w2.\? There are: x0, x1, w0, w1, w2, z"
    ):
        ledger(neuron.forward)(X, W).graph.node("w9")


def test_an_element_behind_a_mask_has_its_edge():
    found = of(lambda w: tag(jnp.sum(jax.nn.relu(w)), "y"), jnp.array([-1.0, 2.0]))
    assert locals_of(found) == {("w0", "y"): 0, ("w1", "y"): 1}
    found = of(lambda w: tag(jnp.where(w[0] > 0, w[1], w[2]), "y"), jnp.array([1.0, 2.0, 3.0]))
    assert locals_of(found) == {("w1", "y"): 1, ("w2", "y"): 0}


def test_equal_layers_have_local_derivatives_of_their_own():
    def fun(w, x):
        for i in range(12):
            x = tag(jnp.tanh(w[i] @ x), f"x{i}")
        return jnp.sum(x)

    w = np.sin(np.arange(12 * 9, dtype=np.float32)).reshape(12, 3, 3)
    found = of(fun, w, jnp.ones(3))
    for i in range(1, 12):
        want = np.diag(1 - found.nodes[f"x{i}"].value ** 2) @ w[i]
        # 1 - tanh(x)**2 cancels: some float32 roundings of 1.
        # Float32, and what cancels.
        np.testing.assert_allclose(found.edges[f"x{i - 1}", f"x{i}"].local, want, rtol=1e-5, atol=1e-6)


def test_an_argument_sharded_by_its_type_is_refused_and_the_whole_of_it_is_read():
    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        x = jax.device_put(jnp.arange(4.0), jax.sharding.NamedSharding(mesh, P("i")))
        read = ledger(lambda x: jnp.sum(tag(jnp.sin(x), "a")))
        with pytest.raises(InputError, match=r"sharded over an explicit mesh.* Give jax.device_get\(argument\)"):
            read(x)
        assert read(jax.device_get(x)).nodes["x0"].grad == 1


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (
            lambda found: found.nodes["kk"],
            "there is no node 'kk'. Did you mean \"k\"? There are: x0, x1, w0, w1, w2",
        ),
        (lambda found: found.explain("hh"), "there is no node 'hh'. Did you mean \"h\"?"),
        (lambda found: found.explain(3), "there is no node '3'."),
        (lambda found: found.edges["z", "h"], "there is no edge from 'z' to 'h'. Edges to 'h': ('k', 'h')."),
        (lambda found: found.edges["k", "z"], "there is no edge from 'k' to 'z'; write ('z', 'k')."),
        (lambda found: found.edges["z"], "there is no edge 'z'; expected a pair (source, target)"),
    ],
)
def test_what_is_no_node_or_edge_is_an_error_that_says_what_is(read, text):
    found = ledger(neuron.forward)(X, W)
    with pytest.raises(InputError, match=re.escape(text)):
        read(found)
    assert "kk" not in found.nodes
    assert found.edges.get(("z", "h")) is None
