"""The numbers in an output, held to the formulas in wider arithmetic, which share nothing with JAX."""

import numpy as np
import pytest

from helpers.row_files import read, run

ROWS = 64
# 16 is the most for which each quantity is a result of its own, 17 the least for which those of a kind are one array.
INPUTS = [("float32", n) for n in (1, 2, 16, 17, 40)] + [
    (dtype, n) for dtype in ("float16", "float64") for n in (2, 17)
]
EVERY = [(dtype, n) for dtype in ("float16", "float32", "float64") for n in range(1, 41)]
REST = [pytest.param(*case, marks=pytest.mark.deep) for case in EVERY if case not in INPUTS]
WIDE = np.longdouble


def formulas(x, w):
    """Every quantity by the document's formulas, in longdouble."""
    x, w = x.astype(WIDE), w.astype(WIDE)
    z = x @ w[:-1] + w[-1]
    k = np.exp(-z)
    h = 1 + k
    f = 1 / h
    slope = k / h**2
    found = {"z": z, "k": k, "h": h, "f": f, "df/dz": slope, "df/dk": -(f**2), "df/dh": -(f**2)}
    found |= {f"df/dw{i}": slope * x[:, i] for i in range(x.shape[1])} | {f"df/dw{x.shape[1]}": slope}
    return found | {f"df/dx{i}": slope * w[i] for i in range(x.shape[1])}


@pytest.mark.parametrize(("dtype", "inputs"), [*INPUTS, *REST])
def test_every_number_is_that_of_wider_arithmetic(dtype, inputs, tmp_path):
    draw = np.random.default_rng(inputs)
    x = draw.standard_normal((ROWS, inputs)).astype(dtype)
    w = (draw.standard_normal(inputs + 1) / np.sqrt(inputs)).astype(dtype)
    np.save(tmp_path / "rows.npy", x)
    np.save(tmp_path / "w.npy", w)
    out = tmp_path / "out.npy"
    assert run(tmp_path / "rows.npy", "-w", tmp_path / "w.npy", "-o", out) == 0
    found, want = read(out), formulas(x, w)
    assert list(found) == list(want)
    # z may be off by a rounding of each term and partial sum (float16 is summed in float32), of the sum, and of itself.
    # All else may be off by as much relative to itself, as exp has it, and by 6 roundings (5.5 over all float32).
    eps = float(np.finfo(dtype).eps)
    terms = np.abs(x.astype(WIDE)) @ np.abs(w[:-1].astype(WIDE)) + abs(WIDE(w[-1]))
    off = (inputs + 1) * np.finfo("float32" if dtype == "float16" else dtype).eps * terms
    off += eps * (np.abs(want["z"]) + np.abs(want["z"] - w[-1].astype(WIDE)))
    for name, column in found.items():
        assert column.dtype == dtype
        bound = off if name == "z" else (off + 6 * eps) * np.abs(want[name]) + float(np.finfo(dtype).smallest_subnormal)
        assert (np.abs(column.astype(WIDE) - want[name]) <= bound).all(), name
