"""Models of Flax and Equinox and a training step of Optax, their layers tagged: as PyTorch's retain_grad has them.

The second oracle is backpropagation by hand, in NumPy. Where PyTorch is missing it is the only one, unless
JAXGRAD_REQUIRE_TORCH=1 makes that an error.
"""

import importlib.util
import os
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from jaxgrad import TagError, retain_grads, retain_vjp, tag

NAMES = ("hidden", "active", "scores")
RATE = 0.1
# float32: sums of at most 15 terms of size about 1, through two layers and a tanh
CLOSE = {"rtol": 2e-5, "atol": 2e-6}


class Weights(NamedTuple):
    """Two layers: tanh(x @ w1 + b1) @ w2 + b2."""

    w1: np.ndarray
    b1: np.ndarray
    w2: np.ndarray
    b2: np.ndarray


class Answer(NamedTuple):
    """The loss, the values and gradients of what NAMES names, and the gradients of the weights."""

    loss: float
    values: dict
    grads: dict
    weight_grads: Weights


@pytest.fixture
def weights():
    rng = np.random.default_rng(0)
    shapes = ((3, 4), (4,), (4, 2), (2,))
    return Weights(*(rng.normal(size=shape).astype(np.float32) for shape in shapes))


@pytest.fixture
def data():
    rng = np.random.default_rng(1)
    return rng.normal(size=(5, 3)).astype(np.float32), rng.normal(size=(5, 2)).astype(np.float32)


def numpy_answer(weights, x, y):
    w1, b1, w2, b2 = (a.astype(np.float64) for a in weights)
    hidden = x @ w1 + b1
    active = np.tanh(hidden)
    scores = active @ w2 + b2
    scores_bar = 2 * (scores - y) / y.size
    active_bar = scores_bar @ w2.T
    hidden_bar = active_bar * (1 - active**2)
    return Answer(
        np.mean((scores - y) ** 2),
        dict(zip(NAMES, (hidden, active, scores), strict=True)),
        dict(zip(NAMES, (hidden_bar, active_bar, scores_bar), strict=True)),
        Weights(x.T @ hidden_bar, hidden_bar.sum(0), active.T @ scores_bar, scores_bar.sum(0)),
    )


def torch_answer(weights, x, y):
    import torch

    w1, b1, w2, b2 = leaves = [torch.tensor(a, requires_grad=True) for a in weights]
    hidden = torch.tensor(x) @ w1 + b1
    active = torch.tanh(hidden)
    scores = active @ w2 + b2
    kept = (hidden, active, scores)
    for tensor in kept:
        tensor.retain_grad()
    loss = torch.nn.functional.mse_loss(scores, torch.tensor(y))
    loss.backward()
    return Answer(
        loss.item(),
        {name: tensor.detach().numpy() for name, tensor in zip(NAMES, kept, strict=True)},
        {name: tensor.grad.numpy() for name, tensor in zip(NAMES, kept, strict=True)},
        Weights(*(leaf.grad.numpy() for leaf in leaves)),
    )


ORACLES = {"numpy": numpy_answer, "torch": torch_answer}


@pytest.fixture(params=["numpy", pytest.param("torch", marks=pytest.mark.torch)])
def oracle(request):
    if request.param == "torch" and importlib.util.find_spec("torch") is None:
        if os.environ.get("JAXGRAD_REQUIRE_TORCH") == "1":
            pytest.fail("JAXGRAD_REQUIRE_TORCH=1, and torch is not installed")
        pytest.skip("torch is not installed")
    return ORACLES[request.param]


def agree(record, want):
    assert record.names == NAMES
    np.testing.assert_allclose(record.output, want.loss, **CLOSE)
    for name in NAMES:
        np.testing.assert_allclose(record.values[name], want.values[name], err_msg=name, **CLOSE)
        np.testing.assert_allclose(record.grads[name], want.grads[name], err_msg=name, **CLOSE)


def weights_agree(got, want):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)


class FlaxNet(nnx.Module):
    def __init__(self, weights, name):
        rngs = nnx.Rngs(0)
        self.first, self.second = nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)
        self.first.kernel, self.first.bias = nnx.Param(jnp.array(weights.w1)), nnx.Param(jnp.array(weights.b1))
        self.second.kernel, self.second.bias = nnx.Param(jnp.array(weights.w2)), nnx.Param(jnp.array(weights.b2))
        self.name = name

    def __call__(self, x):
        hidden = self.name(self.first(x), "hidden")
        active = self.name(jnp.tanh(hidden), "active")
        return self.name(self.second(active), "scores")


class EquinoxNet(eqx.Module):
    first: eqx.nn.Linear
    second: eqx.nn.Linear
    activation: object  # a function among the leaves, as Equinox's own layers have it

    def __init__(self, weights):
        key = jax.random.key(0)
        parts = (weights.w1.T, weights.b1, weights.w2.T, weights.b2)
        layers = eqx.nn.Linear(3, 4, key=key), eqx.nn.Linear(4, 2, key=key)
        self.first, self.second = eqx.tree_at(
            lambda pair: (pair[0].weight, pair[0].bias, pair[1].weight, pair[1].bias),
            layers,
            [jnp.array(a) for a in parts],
        )
        self.activation = jnp.tanh

    def __call__(self, row):
        hidden = tag(self.first(row), "hidden")
        active = tag(self.activation(hidden), "active")
        return tag(self.second(active), "scores")


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("name", [tag, checkpoint_name], ids=["tag", "checkpoint_name"])
def test_a_flax_model_keeps_the_gradient_of_each_activation(name, transform, weights, data, oracle):
    x, y = data
    structure, state = nnx.split(FlaxNet(weights, name))

    def loss(state, x):
        return jnp.mean((nnx.merge(structure, state)(x) - y) ** 2)

    record = transform(retain_grads(loss, names=NAMES))(state, x)
    want = oracle(weights, x, y)
    agree(record, want)
    bars = record.arg_grads[0]
    got = (bars["first"]["kernel"], bars["first"]["bias"], bars["second"]["kernel"], bars["second"]["bias"])
    weights_agree([jax.tree.leaves(bar)[0] for bar in got], want.weight_grads)


def test_a_flax_model_that_is_closed_over_keeps_them_too(weights, data, oracle):
    x, y = data
    model = FlaxNet(weights, tag)
    agree(retain_grads(lambda x: jnp.mean((model(x) - y) ** 2))(x), oracle(weights, x, y))


@pytest.mark.parametrize("transform", [lambda f: f, eqx.filter_jit], ids=["eager", "filter_jit"])
def test_an_equinox_model_in_a_vmap_keeps_the_gradient_of_each_row(transform, weights, data, oracle):
    x, y = data

    def loss(model, x):
        return jnp.mean((jax.vmap(model)(x) - y) ** 2)

    record = transform(retain_grads(loss))(EquinoxNet(weights), x)
    want = oracle(weights, x, y)
    agree(record, want)
    bars = record.arg_grads[0]
    assert bars.activation is None
    weights_agree((bars.first.weight.T, bars.first.bias, bars.second.weight.T, bars.second.bias), want.weight_grads)


def test_an_equinox_model_pulls_a_cotangent_back_to_each_row(weights, data, oracle):
    x, y = data
    want = oracle(weights, x, y)
    scores, values, pullback = retain_vjp(jax.vmap(EquinoxNet(weights)), x)
    _, grads = pullback(2 * (scores - y) / y.size)
    assert tuple(values) == NAMES
    for name in NAMES:
        np.testing.assert_allclose(grads[name], want.grads[name], err_msg=name, **CLOSE)


def test_an_optax_step_trains_as_before_and_keeps_the_gradients_of_each_step(weights, data, oracle):
    x, y = data
    optimizer = optax.sgd(RATE, momentum=0.9)

    def loss(weights, name):
        hidden = name(x @ weights.w1 + weights.b1, "hidden")
        active = name(jnp.tanh(hidden), "active")
        return jnp.mean((name(active @ weights.w2 + weights.b2, "scores") - y) ** 2)

    @jax.jit
    def step(weights, state):
        record = retain_grads(lambda weights: loss(weights, tag))(weights)
        updates, state = optimizer.update(record.arg_grads[0], state, weights)
        return optax.apply_updates(weights, updates), state, record

    params = jax.tree.map(jnp.array, weights)
    state = optimizer.init(params)
    by_hand, momentum = weights, Weights(*(np.zeros_like(a) for a in weights))
    for _ in range(3):
        params, state, record = step(params, state)
        want = oracle(by_hand, x, y)
        agree(record, want)
        momentum = Weights(*(0.9 * m + g for m, g in zip(momentum, want.weight_grads, strict=True)))
        by_hand = Weights(*((a - RATE * m).astype(np.float32) for a, m in zip(by_hand, momentum, strict=True)))
    weights_agree(params, by_hand)


def test_the_oracles_tell_a_gradient_that_is_wrong(weights, data, oracle):
    x, y = data
    want = oracle(weights, x, y)
    wrong = retain_grads(lambda w: jnp.mean((tag(tag(jnp.tanh(tag(x @ w.w1 + w.b1, "hidden")), "active") @ w.w2
                                             + 2 * w.b2, "scores") - y) ** 2))(weights)  # fmt: skip
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        agree(wrong, want)


# Other libraries' own layers and solvers, each beside what JAX alone says of them


def agrees_with_grad(fun, *args, name, want):
    """The gradient of a tag is `want`, and those of the arguments are `jax.grad`'s."""
    record = retain_grads(fun)(*args)
    np.testing.assert_allclose(record.grads[name], want, **CLOSE)
    got, plain = record.arg_grads, jax.grad(fun, argnums=tuple(range(len(args))), allow_int=True)(*args)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(plain), strict=False):
        np.testing.assert_allclose(a, b, **CLOSE)
    return record


def test_linen_layers(data):
    linen = pytest.importorskip("flax.linen")

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            return jnp.sum(tag(linen.Dense(2)(linen.LayerNorm()(x)), "scores") ** 2)

    net, (x, _) = Net(), data
    params = jax.jit(net.init)(jax.random.key(0), x)
    scores = retain_grads(net.apply)(params, x).values["scores"]
    agrees_with_grad(net.apply, params, x, name="scores", want=2 * scores)


def test_nnx_variables_that_are_refs(data):
    x, _ = data
    kernel = nnx.Linear(3, 2, rngs=nnx.Rngs(0)).kernel[...]

    def loss(kernel, x):
        total = nnx.Variable(jnp.zeros(2), ref=True)
        for row in x:
            total[...] += tag(row @ kernel, "row")
        return jnp.sum(total[...] ** 2)

    record = retain_grads(loss)(kernel, x)
    assert len(record.names) == len(x)
    for name in record.names:
        np.testing.assert_allclose(record.grads[name], 2 * np.sum(x @ np.asarray(kernel), axis=0), **CLOSE)


def test_haiku_layers(data):
    haiku = pytest.importorskip("haiku")
    x, _ = data
    net = haiku.without_apply_rng(haiku.transform(lambda x: jnp.sum(tag(haiku.Linear(2)(jnp.tanh(x)), "s") ** 2)))
    params = net.init(jax.random.key(0), x)
    scores = retain_grads(net.apply)(params, x).values["s"]
    agrees_with_grad(net.apply, params, x, name="s", want=2 * scores)


def test_equinox_attention_whose_dropout_is_a_python_float(data):
    x, _ = data
    attention = eqx.nn.MultiheadAttention(1, 3, dropout_p=0.0, key=jax.random.key(0))

    def loss(attention, x):
        return jnp.sum(tag(attention(x, x, x), "o") ** 2)

    record = retain_grads(loss)(attention, x)
    np.testing.assert_allclose(record.grads["o"], 2 * record.values["o"], **CLOSE)
    for a, b in zip(
        jax.tree.leaves(record.arg_grads[0]),
        jax.tree.leaves(eqx.filter_jit(eqx.filter_grad(loss))(attention, x)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, **CLOSE)


def test_a_diffrax_solution():
    diffrax = pytest.importorskip("diffrax")

    def loss(y):
        term, solver = diffrax.ODETerm(lambda t, y, args: -y), diffrax.Euler()
        start, step = tag(2 * y, "start"), diffrax.ConstantStepSize()
        solution = diffrax.diffeqsolve(term, solver, 0.0, 1.0, 0.25, start, stepsize_controller=step)
        return jnp.sum(tag(solution.ys[-1], "end"))

    record = retain_grads(loss)(jnp.array([1.0, -2.0]))
    np.testing.assert_allclose(record.grads["start"], np.full(2, 0.75**4), **CLOSE)  # four steps of y - y / 4
    np.testing.assert_array_equal(record.grads["end"], np.ones(2))


def test_an_optimistix_root():
    optimistix = pytest.importorskip("optimistix")

    def loss(a):
        square = tag(3 * a, "square")
        found = optimistix.root_find(lambda y, s: y**2 - s, optimistix.Newton(1e-6, 1e-6), jnp.float32(1), square)
        return tag(found.value, "root")

    record = retain_grads(loss)(jnp.float32(3))
    np.testing.assert_allclose(record.values["root"], 3, **CLOSE)
    np.testing.assert_allclose(record.grads["square"], 1 / 6, **CLOSE)


def test_a_lineax_operator_that_is_a_function_with_a_tag():
    lineax = pytest.importorskip("lineax")
    x = np.float32([0.3, -0.7, 1.1])

    def loss(a):
        operator = lineax.FunctionLinearOperator(
            lambda v: tag(a * v, "product"), jax.eval_shape(lambda: x), lineax.positive_semidefinite_tag
        )
        return jnp.sum(tag(lineax.linear_solve(operator, x, solver=lineax.CG(1e-6, 1e-6)).value, "solution"))

    for _ in range(2):  # JAX has the operation in its cache the second time
        refused = (
            r'tag "product" \(test_clients.py:\d+\) is inside the operation "linear_solve", .* Tag its operands or'
        )
        with pytest.raises(TagError, match=refused):
            retain_grads(loss)(jnp.float32(2))
    record = retain_grads(loss, names="solution")(jnp.float32(2))
    np.testing.assert_allclose(record.values["solution"], x / 2, **CLOSE)
    np.testing.assert_allclose(record.arg_grads[0], -x.sum() / 4, **CLOSE)


def test_a_numpyro_density():
    numpyro = pytest.importorskip("numpyro")
    normal = numpyro.distributions.Normal

    def loss(mean):
        return -tag(normal(tag(2 * mean, "mean"), 1.0).log_prob(jnp.array([0.5, 1.5])), "log_prob").sum()

    record = retain_grads(loss)(jnp.float32(1))
    np.testing.assert_allclose(record.grads["mean"], 2.0, **CLOSE)  # sum of 2 - 0.5 and 2 - 1.5


def test_a_jraph_graph_whose_counts_are_integers():
    jraph = pytest.importorskip("jraph")
    graph = jraph.GraphsTuple(
        nodes=jnp.array([[1.0], [2.0], [3.0]]),
        edges=None,
        senders=jnp.array([0, 1]),
        receivers=jnp.array([1, 2]),
        n_node=jnp.array([3]),
        n_edge=jnp.array([2]),
        globals=None,
    )

    def loss(graph):
        named = tag(graph, "graph")
        sums = jraph.segment_sum(named.nodes[graph.senders], graph.receivers, 3)
        return jnp.sum(tag(sums, "sums") ** 2)

    record = retain_grads(loss)(graph)
    np.testing.assert_allclose(record.grads["sums"], [[0.0], [2.0], [4.0]], **CLOSE)
    np.testing.assert_allclose(record.grads["graph.nodes"], [[2.0], [4.0], [0.0]], **CLOSE)
    assert record.notes["graph.senders"] == "int32 has no gradient"
