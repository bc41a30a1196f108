"""A PyTorch module or function run once is a record by its own names, and is left as it was."""

import contextlib
import copy
import os
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad import InputError, OutputError, TagError, align, compare, neuron, retain_grads, retain_torch, watch

if os.environ.get("JAXGRAD_REQUIRE_TORCH") == "1":
    import torch
else:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")
from torch import nn
from torch.nn import functional as F

pytestmark = pytest.mark.torch


class Block(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.linear = nn.Linear(size, size)
        self.norm = nn.BatchNorm1d(size)

    def forward(self, x):
        h = self.norm(self.linear(x))
        h = torch.relu(h)
        return x + h


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Block(3), Block(3)])
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(3, 1)
        self.calls, self.history = 0, []

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        self.calls += 1
        self.history.append(self.calls)
        logits = self.head(self.dropout(x))
        return logits


def doubled(x):
    u = 2 * x
    return u


def by_backward(model, x, tensors):
    """The gradients that PyTorch's own hooks and `backward` give."""
    kept = {}
    for name in tensors:
        model.get_submodule(name).register_forward_hook(
            lambda m, i, o, name=name: kept.update({name: (o, o.retain_grad())[0]})
        )
    (model(x) ** 2).sum().backward()
    return {name: tensor.grad.numpy() for name, tensor in kept.items()}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model()


@pytest.fixture
def x():
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(1))


def squared(y):
    return (y**2).sum()


def test_modules_variables_and_parameters_have_their_names_in_program_order(model, x):
    record = retain_torch(model, loss=squared)(x)
    parameters = [re.sub(r"\.(\d)", r"[\1]", name) for name, _ in model.named_parameters()]
    of_block = ("linear", "norm", "h[0]", "h[1]")
    assert list(record.names) == [
        *parameters,
        *(f"layers[0].{name}" for name in of_block),
        *("layers[0]", "x[0]"),
        *(f"layers[1].{name}" for name in of_block),
        *("layers[1]", "x[1]", "dropout", "head", "logits"),
    ]
    assert record.notes == {}


def test_values_and_gradients_are_those_of_backward(model, x):
    record = retain_torch(model, loss=squared)(x)
    names = ["layers.0.linear", "layers.0", "layers.1.norm", "head"]
    grads = by_backward(copy.deepcopy(model), x, names)  # with the same dropout: the generator was put back
    torch.manual_seed(0)
    again = Model()
    for name, grad in grads.items():
        np.testing.assert_array_equal(record.grads[re.sub(r"\.(\d)", r"[\1]", name)], grad)
    (again(x) ** 2).sum().backward()
    for name, parameter in again.named_parameters():
        np.testing.assert_array_equal(record.grads[re.sub(r"\.(\d)", r"[\1]", name)], parameter.grad.numpy())
        np.testing.assert_array_equal(record.values[re.sub(r"\.(\d)", r"[\1]", name)], parameter.detach().numpy())


def test_the_documents_function_gives_the_numbers_of_part_2():
    def f(x, w):
        z = (w[:-1] * x).sum() + w[-1]
        k = torch.exp(-z)
        h = 1 + k
        f = 1 / h
        return f

    x, w = np.float32([1, 2]), np.float32([0.5, -0.3, 0.1])
    want = retain_torch(f)(torch.tensor(x), torch.tensor(w))
    assert want.names == ("z", "k", "h", "f")
    compare(jax.jit(neuron.backprop)(x, w), want).raise_if_different()


def test_a_function_finds_its_models_and_helpers(model, x):
    def loss(x):
        y = doubled(x)
        return squared(model(y))

    record = retain_torch(loss)(x)
    assert {"doubled.u", "y", "layers[1].h[1]", "head", "head.weight"} <= set(record.names)
    assert record.arg_grads[0].shape == (4, 3)


def test_two_models_go_by_their_variables():
    encoder, decoder = nn.Linear(2, 3), nn.Linear(3, 2)

    def loss(x):
        return squared(decoder(encoder(x)))

    names = retain_torch(loss)(torch.ones(1, 2)).names
    assert {"encoder", "decoder", "encoder.weight"} <= set(names)


def test_a_module_in_place_keeps_the_value_that_was_named():
    class InPlace(nn.Module):
        def forward(self, x):
            h = 2 * x
            h.mul_(x)
            h = F.relu(h, inplace=True)
            return squared(h)

    record = retain_torch(InPlace())(torch.tensor([1.0, -2.0]))
    assert record.names == ("h[0]", "h[1]", "h[2]")
    np.testing.assert_array_equal(record.values["h[0]"], [2, -4])
    np.testing.assert_array_equal(record.values["h[1]"], [2, 8])
    np.testing.assert_array_equal(record.grads["h[1]"], [4, 16])
    np.testing.assert_array_equal(record.grads["h[0]"], [4, -32])  # times x


def test_containers_go_by_path_and_what_has_no_gradient_says_why():
    def f(x):
        pair = (x * 2, {"a": x * 3})
        index = torch.argmax(x)
        free = (x * 5).detach()
        return pair[0].sum() + (free.sum() if index else 0)

    record = retain_torch(f)(torch.tensor([1.0, 2.0]))
    assert record.names == ("pair[0]", "pair[1]['a']", "index", "free")
    assert record.notes == {
        "pair[1]['a']": "does not reach the output",
        "index": "int64 has no gradient",
        "free": "does not require grad",
    }


@pytest.mark.parametrize(("stopped", "different"), [(True, []), (False, ["h.grad"])])
def test_a_detached_tensor_is_compared_by_value_and_a_forgotten_stop_shows_before_it(stopped, different):
    def original(x):
        h = x * 2
        free = (h * 5).detach()
        return (h * free).sum()

    def port(x):
        h = x * 2
        free = jax.lax.stop_gradient(h * 5) if stopped else h * 5
        return (h * free).sum()

    want = retain_torch(original)(torch.tensor([1.0, 2.0]))
    got = retain_grads(watch(port))(jnp.array([1.0, 2.0]))
    comparison = compare(got, want, names=align(got, want))
    assert [row.label for row in comparison.rows if not row.ok and not row.name.startswith("arg")] == different
    assert "compared by value alone, for in `want` they do not require grad: free" in comparison.remarks


def test_a_cotangent_stands_for_a_loss():
    record = retain_torch(doubled, cotangent=torch.tensor([1.0, 10.0]))(torch.ones(2))
    np.testing.assert_array_equal(record.grads["u"], [1, 10])
    np.testing.assert_array_equal(record.arg_grads[0], [2, 20])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", "complex64"])
def test_dtypes_are_kept(dtype):
    record = retain_torch(doubled, loss=lambda u: u.abs().float().sum())(torch.ones(2, dtype=getattr(torch, dtype)))
    assert record.values["u"].dtype == record.grads["u"].dtype == record.arg_grads[0].dtype == jnp.dtype(dtype)


def state(model):
    return {
        "tensors": [
            (id(t), t.detach().numpy().tobytes(), t.requires_grad) for t in (*model.parameters(), *model.buffers())
        ],
        "grads": [(id(p.grad), None if p.grad is None else p.grad.numpy().tobytes()) for p in model.parameters()],
        "training": [m.training for m in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._backward_hooks)) for m in model.modules()],
        "attributes": (model.calls, list(model.history)),
        "generators": (torch.get_rng_state().numpy().tobytes(), np.random.get_state()[2]),
        "flags": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), sys.gettrace()),
    }


@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("grads", [True, False])
def test_all_is_left_as_it_was(model, x, fails, training, grads):
    if grads:
        squared(model(x)).backward()
    model.train(training)
    model.layers[1].eval()
    model.head.weight.requires_grad_(False)

    def loss(y):
        model.train(not training)
        model.head.weight.grad = torch.ones(1, 3)
        np.random.rand()
        if fails:
            raise RuntimeError("as planted")
        return squared(y)

    before, given = state(model), x.clone()
    raises = pytest.raises(RuntimeError, match="as planted") if fails else contextlib.nullcontext()
    with raises, torch.set_grad_enabled(grads):
        retain_torch(model, loss=loss)(x)
    assert state(model) == before
    assert torch.equal(x, given)
    assert not x.requires_grad


def test_a_tracer_that_was_set_is_set_again(model, x):
    def tracer(*_):
        return None

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        retain_torch(model, loss=squared)(x)
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)


def overwritten(x):
    h = x * 2
    h.data.mul_(2)
    return squared(h)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: retain_torch(doubled)(torch.ones(2)), OutputError, "the output is torch.float32[2]; expected a real"),
        (lambda: retain_torch(lambda x: 3.0)(torch.ones(2)), OutputError, "the output is a float; expected a real"),
        (lambda: retain_torch(lambda x: x.detach().sum())(torch.ones(2)), OutputError, "depends on nothing that has"),
        (lambda: retain_torch(doubled)(torch.ones((), device="meta")), InputError, "is on the device meta; expected"),
        (lambda: retain_torch(overwritten)(torch.ones(2)), TagError, 'the tensor "h" was overwritten after it was'),
        (lambda: retain_torch(3), InputError, "`fun_or_module` is a int; expected a PyTorch module or function."),
        (lambda: retain_torch(doubled, loss=squared, cotangent=1), InputError, "`loss` and `cotangent` are both given"),
        (
            lambda: retain_torch(doubled, cotangent=torch.ones(3))(torch.ones(2)),
            OutputError,
            "the output is [2] and `cotangent` is [3]; expected a tensor of that shape.",
        ),
    ],
)
def test_bad_input_is_one_clear_error(call, error, text):
    with pytest.raises(error, match=re.escape(text)):
        call()


def test_inference_mode_is_an_error(x):
    with torch.inference_mode(), pytest.raises(InputError, match="inference mode is on, in which PyTorch keeps no"):
        retain_torch(doubled)(x)


def test_a_name_that_is_ambiguous_is_an_error():
    def f(x):
        h = x * 2
        h = [h * 2]
        h = x * 4
        return squared(h) + 0 * x.sum()

    with pytest.raises(TagError, match=re.escape('two tensors would be named "h[0]"; expected a name for each.')):
        retain_torch(f)(torch.ones(2))


def test_a_wrong_module_is_found_by_its_path(model, x):
    model.eval()
    want = retain_torch(model, loss=squared)(x)
    wrong = copy.deepcopy(model)
    wrong.layers[1].norm.eps = 1e-2
    got = retain_torch(wrong, loss=squared)(x)
    assert compare(want, want).ok
    assert compare(got, want, names=align(got, want)).first_divergence.label == "layers[1].norm"
