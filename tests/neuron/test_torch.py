"""A second oracle: PyTorch, with retain_grad on z, k and h as in the document."""

import os
import re

import jax
import numpy as np
import pytest

from helpers import oracle
from helpers.document import PRINTED
from jaxgrad import InputError, compare, neuron, retain_grads, tag
from jaxgrad.__main__ import main

# Where PyTorch must be there its absence is an error; elsewhere this whole module is skipped, and says so.
if os.environ.get("JAXGRAD_REQUIRE_TORCH") == "1":
    import torch
else:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")

pytestmark = pytest.mark.torch

# 10 * 100 = 1,000 neurons: each number of inputs compiles, and a vector's lanes end at 4, 8, 16, 32 and 64 of them.
SOME = (1, 2, 3, 4, 7, 8, 9, 16, 33, 64)
SIZES = [SOME, pytest.param(range(1, 65), marks=pytest.mark.deep)]
ROWS = 100


def by_torch(x, w):
    """Rows of neurons, each taken apart as in part 2 of the document: the sum of f gives each row its own gradients."""
    x, w = (torch.tensor(a, requires_grad=True) for a in (x, w))
    z = (w[:, :-1] * x).sum(1) + w[:, -1]
    z.retain_grad()
    k = torch.exp(-z)
    k.retain_grad()
    h = 1 + k
    h.retain_grad()
    f = 1 / h
    f.sum().backward()
    values = {name: v.detach().numpy() for name, v in {"z": z, "k": k, "h": h, "f": f}.items()}
    grads = {f"df/d{name}": v.grad.numpy() for name, v in {"z": z, "k": k, "h": h, "x": x, "w": w}.items()}
    return values | grads


def by_jax(batches):
    return [jax.vmap(neuron.backprop)(x, w) for x, w in batches]


@pytest.mark.parametrize("sizes", SIZES, ids=["some", "all"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_1000_random_neurons_have_the_same_values_and_gradients_in_pytorch(dtype, sizes):
    batches = [oracle.random_neurons(n, dtype, ROWS) for n in sizes]
    assert ROWS * len(sizes) >= 1000
    with jax.enable_x64(dtype == "float64"):
        found = jax.device_get(jax.jit(by_jax)(batches))
    for (x, w), record in zip(batches, found, strict=True):
        ours = oracle.arrays(record)
        theirs = by_torch(x, w)
        assert set(theirs) == set(ours)
        compare(record, oracle.labelled(theirs)).raise_if_different()
        error = oracle.rounding(x, w, dtype)
        for name, values in theirs.items():
            assert values.dtype == ours[name].dtype == dtype
            # Each may be off the truth by the rounding of n products and sums, in either direction.
            off = abs(values.astype(np.longdouble) - ours[name])
            assert np.all(off <= 2 * error[name]), f"{name} of {x.shape[1]} inputs"


def test_the_document_runs_in_pytorch_and_prints_the_tables_digits():
    # Part 1
    x0 = torch.tensor(1.0)
    x1 = torch.tensor(2.0)
    w0 = torch.tensor(0.5)
    w1 = torch.tensor(-0.3)
    w2 = torch.tensor(0.1)
    z = w0 * x0 + w1 * x1 + w2
    k = torch.exp(-z)
    h = 1 + k
    f = 1 / h
    printed = [f.item(), h.item(), k.item(), z.item()]

    df_dh = -1 / (h**2)
    dh_dk = 1.0
    dk_dz = -torch.exp(-z)
    df_dw0, df_dw1, df_dw2, df_dx0, df_dx1 = (df_dh * dh_dk * dk_dz * last for last in (x0, x1, 1.0, w0, w1))
    printed += [df_dh.item(), df_dw0.item(), dh_dk, dk_dz.item(), df_dw1.item(), df_dw2.item()]
    printed += [df_dx0.item(), df_dx1.item()]

    # Part 2
    x0, x1, w0, w1, w2 = leaves = [torch.tensor(v, requires_grad=True) for v in (1.0, 2.0, 0.5, -0.3, 0.1)]
    z = w0 * x0 + w1 * x1 + w2
    z.retain_grad()
    k = torch.exp(-z)
    k.retain_grad()
    h = 1 + k
    h.retain_grad()
    f = 1 / h
    f.backward()
    printed += [f.item(), h.item(), h.grad.item(), k.item(), k.grad.item(), z.item(), z.grad.item()]
    printed += [leaf.grad.item() for leaf in leaves[2:] + leaves[:2]]
    printed += [f.item() * (1 - f.item())]

    assert [str(number) for number in printed] == [digits for *_, digits in PRINTED]


def tensors_of_the_neuron(retained=("z", "k", "h", "f"), dtype=None):
    x, w = (torch.tensor(a, dtype=dtype, requires_grad=True) for a in ([1.0, 2.0], [0.5, -0.3, 0.1]))
    z = (w[:-1] * x).sum() + w[-1]
    k = torch.exp(-z)
    h = 1 + k
    f = 1 / h
    named = {"z": z, "k": k, "h": h, "f": f}
    for name in retained:
        named[name].retain_grad()
    return f, {**named, 0: x, 1: w}


@pytest.mark.parametrize("name", ["bfloat16", "float32", "float64"])
def test_compare_takes_tensors_with_their_gradients(name):
    f, tensors = tensors_of_the_neuron(dtype=getattr(torch, name))
    f.backward()
    with jax.enable_x64(name == "float64"):
        x, w = (jax.numpy.asarray(tensors[i].detach().double().numpy(), name) for i in (0, 1))
        comparison = compare(neuron.backprop(x, w), tensors)
    assert [row.label for row in comparison.rows] == [
        *("z", "k", "h", "f", "f.grad", "h.grad", "k.grad", "z.grad", "arg[0].grad", "arg[1].grad")
    ]
    assert comparison.ok, str(comparison)


def test_a_wrong_gradient_of_a_tensor_is_found():
    f, tensors = tensors_of_the_neuron()
    f.backward()
    tensors[1].grad *= 2
    comparison = compare(jax.jit(neuron.backprop)(*(tensors[i].detach().numpy() for i in (0, 1))), tensors)
    assert comparison.first_divergence.label == "arg[1].grad"


def test_a_tensor_that_was_not_retained_is_an_error():
    f, tensors = tensors_of_the_neuron(retained=("z", "k", "f"))
    f.backward()
    text = "the tensor h requires grad, is no leaf and was not retained, so PyTorch has thrown its gradient away"
    with pytest.raises(InputError, match=re.escape(text)):
        compare(neuron.backprop(*(tensors[i].detach().numpy() for i in (0, 1))), tensors)


def test_tensors_before_the_backward_pass_are_an_error():
    _, tensors = tensors_of_the_neuron()
    with pytest.raises(InputError, match=re.escape("no tensor in `want` has a gradient, though some require one")):
        compare(neuron.backprop(*(tensors[i].detach().numpy() for i in (0, 1))), tensors)


def test_a_detached_tensor_is_a_difference():
    f, tensors = tensors_of_the_neuron()
    f.backward()
    tensors["k"] = tensors["k"].detach()
    comparison = compare(neuron.backprop(*(tensors[i].detach().numpy() for i in (0, 1))), tensors)
    row = comparison.first_divergence
    assert row.label == "k.grad"
    assert row.why == "differs: the tensor is detached: it does not require grad"


def test_torch_gradients_of_complex_tensors_are_conjugated():
    x = torch.tensor([1 + 2j, 3 - 1j], dtype=torch.complex64, requires_grad=True)
    y = x * (2 - 1j)
    y.retain_grad()
    (y * y).sum().real.backward()
    fun = retain_grads(lambda x: jax.numpy.sum(tag(x * (2 - 1j), "y") ** 2).real)
    assert compare(fun(x.detach().numpy()), {"y": y, 0: x}).ok


def test_a_table_of_patients_through_evaluate_equals_pytorch_row_by_row(tmp_path):
    datasets = pytest.importorskip("sklearn.datasets")
    data = datasets.load_breast_cancer()
    path, out = tmp_path / "patients.csv", tmp_path / "out.npy"
    table = np.column_stack([data.data, data.target])
    header = ",".join(f"{name}" for name in [*data.feature_names, "benign"])
    np.savetxt(path, table, delimiter=",", header=header, comments="", fmt="%.17g")
    w = np.append(np.random.default_rng(0).standard_normal(30) / data.data.std(axis=0) / 6, 2.5)
    np.save(tmp_path / "w.npy", w)
    columns = ",".join(data.feature_names)
    options = ["-w", str(tmp_path / "w.npy"), "-o", str(out), "--columns", columns, "--dtype", "float64"]
    assert main(["evaluate", str(path), *options]) == 0

    found = np.load(out)
    assert len(found) == 569
    theirs = by_torch(data.data, np.tile(w, (569, 1)))
    for letter in "xw":
        theirs |= {f"df/d{letter}{i}": column for i, column in enumerate(theirs.pop(f"df/d{letter}").T)}
    assert set(theirs) == set(found.dtype.names)
    # 31 products make z, each rounded and each sum of them: what z is off by, its exp is off by relatively.
    error = 62 * np.finfo(np.float64).eps * (np.abs(data.data) @ np.abs(w[:-1]) + np.abs(w[-1]))
    for name, column in theirs.items():
        off = np.abs(found[name] - column)
        scale = 1 if name == "z" else np.abs(column)
        assert (off <= 2 * scale * error).all(), name  # f**2 and its like double it
    spread = found["f"].max() - found["f"].min()
    assert spread > 0.5  # the rows are not all alike
