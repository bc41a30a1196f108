"""The distance in ULP obeys its laws, and a comparison fails where it must."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from conftest import DTYPES
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from jaxgrad import DifferenceError, InputError, Record, TableError, compare, neuron, reference, retain_grads, tag
from jaxgrad._compare.tolerance import Tolerance, far, worst
from jaxgrad._compare.ulp import ulp_distance
from jaxgrad._document import routes

BITS = {name: jnp.finfo(name).bits for name in DTYPES}


def from_bits(name, bits):
    return np.array(bits, f"uint{BITS[name]}").view(jnp.dtype(name))


def any_number(name):
    return st.integers(0, 2 ** BITS[name] - 1).map(lambda bits: from_bits(name, bits))


def next_up(value):
    return np.nextafter(value, np.asarray(np.inf, value.dtype))


any_name = st.sampled_from(DTYPES)
any_pair = any_name.flatmap(lambda name: st.tuples(any_number(name), any_number(name)))


@given(any_pair)
def test_distance_is_symmetric_and_0_only_between_equals(pair):
    a, b = pair
    equal = bool(a == b) or (np.isnan(a) and np.isnan(b))
    assert ulp_distance(a, b) == ulp_distance(b, a) >= 0
    assert (ulp_distance(a, b) == 0) == equal


@given(any_name.flatmap(any_number), st.integers(1, 20))
def test_distance_counts_the_steps_of_nextafter(start, steps):
    if np.isnan(start):
        return
    value = start
    for _ in range(steps):
        value = next_up(value)
    stop = np.asarray(np.inf, start.dtype)
    expected = steps if value != stop else min(steps, float(ulp_distance(start, stop)))
    assert ulp_distance(start, value) == expected


@given(any_name.flatmap(lambda name: st.lists(any_number(name), min_size=3, max_size=3)))
def test_distances_along_the_line_add_up(numbers):
    if any(np.isnan(number) for number in numbers):
        return
    a, b, c = sorted(numbers, key=float)
    # float64 holds integers exactly up to 2**53 only
    np.testing.assert_allclose(ulp_distance(a, c), ulp_distance(a, b) + ulp_distance(b, c), rtol=1e-15)


@given(any_name.flatmap(any_number))
def test_nothing_is_near_nan_but_nan(value):
    nan = np.asarray(np.nan, value.dtype)
    assert ulp_distance(value, nan) == (0 if np.isnan(value) else np.inf)
    assert ulp_distance(-nan, nan) == 0


@pytest.mark.parametrize("name", DTYPES)
def test_landmarks_of_the_line(name):
    info = ml_dtypes.finfo(name)
    tiny, largest = (np.asarray(v, info.dtype) for v in (info.smallest_subnormal, info.max))
    zero, one, inf = (np.asarray(v, info.dtype) for v in (0, 1, np.inf))
    assert ulp_distance(-zero, zero) == 0
    assert ulp_distance(-tiny, tiny) == 2
    assert ulp_distance(zero, tiny) == 1
    assert ulp_distance(largest, inf) == 1
    assert ulp_distance(one, np.asarray(2, info.dtype)) == 2**info.nmant
    assert ulp_distance(-inf, inf) == 2 * float(ulp_distance(zero, inf))


@pytest.mark.parametrize("name", DTYPES)
def test_arrays_are_compared_element_by_element_also_where_strided(name):
    a = np.arange(12).reshape(3, 4).astype(name)
    b = a.copy()
    b[1, 2] = next_up(b[1, 2])
    want = np.zeros((3, 4))
    want[1, 2] = 1
    np.testing.assert_array_equal(ulp_distance(a, b), want)
    np.testing.assert_array_equal(ulp_distance(a[:, ::2], b[:, ::2]), want[:, ::2])
    np.testing.assert_array_equal(ulp_distance(a.T, jnp.asarray(b).T) if name != "float64" else want.T, want.T)
    assert ulp_distance(a[:0], b[:0]).shape == (0, 4)


@pytest.mark.parametrize(
    ("got", "want", "text"),
    [
        (
            np.float32([1, 2]),
            np.float64([1, 2]),
            "got float32[2] and want float64[2] cannot be compared in ULP; expected one dtype and one shape. "
            "Cast one to the other's dtype first.",
        ),
        (
            np.ones((2, 3)),
            np.ones(3),
            "got float64[2, 3] and want float64[3] cannot be compared in ULP; expected one dtype and one shape. "
            "Cast one to the other's dtype first.",
        ),
        (np.int32(1), np.int32(1), "int32 has no ULP; expected float16, bfloat16, float32 or float64."),
        (np.complex64(1), np.complex64(1), "complex64 has no ULP; expected float16, bfloat16, float32 or float64."),
        (np.bool_(True), np.bool_(True), "bool has no ULP; expected float16, bfloat16, float32 or float64."),
    ],
)
def test_what_has_no_distance_in_ulp_is_an_error(got, want, text):
    with pytest.raises(InputError, match=f"^{re.escape(text)}$"):
        ulp_distance(got, want)


def neuron_of(f, dtype):
    """A record of the neuron in which f is the only number."""
    one, f = np.ones((), dtype), np.asarray(f).astype(dtype)
    values = {"z": one, "k": one, "h": one, "f": f}
    return Record(f, neuron.NAMES, values, dict.fromkeys(values, one), (np.ones(2, dtype), np.ones(3, dtype)))


def table_of(printed, *, rounded, dtype="float32", **number):
    number = {"label": "f:", "quantity": "f"} | number
    numbers = (reference.Number(printed=printed, **number),)
    return dataclasses.replace(
        reference.load(), x=np.ones(2, dtype), w=np.ones(3, dtype), rounded=rounded, numbers=numbers
    )


def compare_one(got, printed, *, rounded, dtype="float32", **tolerances):
    (row,) = compare(neuron_of(got, dtype), table_of(printed, rounded=rounded, dtype=dtype), **tolerances).rows
    return row


@pytest.mark.parametrize(
    ("printed", "inside", "outside"),
    [
        ("0.73", (0.725, 0.7250001, 0.73, 0.7349999, 0.735), (0.7249, 0.7351, -0.73, 0.0)),
        ("-0.73", (-0.725, -0.735), (-0.7249, -0.7351, 0.73)),
        ("0.2", (0.15, 0.25), (0.149, 0.251)),
        ("2", (1.5, 2.5), (1.499, 2.501)),
        ("1e2", (50, 150), (49.9, 150.1)),
        ("1.0e-9", (0.95e-9, 1.05e-9), (0.0, 0.94e-9, 1.06e-9)),  # never an absolute tolerance that lets 0 pass
        ("0", (-0.5, -0.0, 0.5), (0.501,)),
        ("0.00", (0.005,), (0.0051,)),
        ("inf", (np.inf,), (-np.inf, np.nan, 3e38)),
        ("nan", (np.nan,), (0.0, np.inf)),
        ("1e9999999", (np.inf,), (3e38, np.nan)),
    ],
)
def test_a_rounded_number_stands_for_half_a_unit_of_its_last_digit_either_way(printed, inside, outside):
    for got in inside:
        row = compare_one(got, printed, rounded=True, dtype="float64")
        assert (row.ok, row.ulp) == (True, 0), got
    for got in (*outside, *([] if printed == "nan" else [np.nan])):
        row = compare_one(got, printed, rounded=True, dtype="float64")
        assert not row.ok, got
        assert row.ulp > 0, got


@pytest.mark.parametrize("rounded", [True, False])
@pytest.mark.parametrize("printed", ["0.5", "0", "inf", "-1e300", "1e9999999"])
def test_nan_agrees_with_no_number(printed, rounded, dtype):
    row = compare_one(np.nan, printed, rounded=rounded, dtype=dtype)
    assert not row.ok
    assert row.ulp == np.inf


@pytest.mark.parametrize("printed", ["-0.07500000298023224", "-0.075", "-7.5e-2"])
def test_full_digits_may_be_pythons_or_numpys(printed):
    assert compare_one(np.float32(-0.075), printed, rounded=False).ok


@pytest.mark.parametrize("printed", ["-0.07500000298023225", "-0.0750000029802322", "-0.0750", "-0.07500001", "0.075"])
def test_full_digits_differ_where_one_differs_though_it_be_0_ulp(printed):
    row = compare_one(np.float32(-0.075), printed, rounded=False)
    assert row.ok == (printed == "-0.0750")  # a 0 at the end is no other number
    assert row.ulp == {"-0.07500001": 1, "0.075": 2 * float(ulp_distance(np.float32(0), np.float32(0.075)))}.get(
        printed, 0
    )


@pytest.mark.parametrize("value", [0.1, 1 / 3, 2.5e-3, 1e4])
def test_a_value_agrees_with_its_own_full_digits_in_every_dtype(value, dtype):
    value = np.asarray(value).astype(dtype)
    for printed in (str(value), repr(float(value))):
        assert compare_one(value, printed, rounded=False, dtype=dtype).ok
        assert not compare_one(next_up(value), printed, rounded=False, dtype=dtype).ok


def test_given_tolerances_replace_the_printed_digits():
    next_to = next_up(np.float32(0.5))
    assert not compare_one(next_to, "0.5", rounded=False).ok
    assert compare_one(next_to, "0.5", rounded=False, ulp=1).ok
    assert compare_one(next_to, "0.5", rounded=False, rtol=1e-6).ok
    assert not compare_one(0.6, "0.5", rounded=False, atol=0.09).ok
    assert compare_one(np.nan, "nan", rounded=False, rtol=1e-6).ok
    assert not compare_one(0.5, "nan", rounded=False, rtol=1e9, atol=1e9).ok


def test_an_unknown_quantity_is_an_error_with_the_nearest_name():
    table = table_of("0.25", rounded=False, label="Gradient:", quantity="df/dw", part=1, cell=2)
    text = (
        'part 1, cell 2, "Gradient:" (df/dw = 0.25): there is no quantity "df/dw". Did you mean "df/dw2"? There are: '
    )
    with pytest.raises(TableError, match=f"^{re.escape(text)}.*df/dw0, df/dw1, df/dw2"):
        compare(neuron_of(1, "float32"), table)


@pytest.mark.parametrize(
    ("record", "kind", "text"),
    [
        (
            lambda: neuron_of(0.5, "float64"),
            InputError,
            'f is float64 and the table "Chain rule and back propagation of a sigmoid neuron" was computed in float32; '
            "expected one dtype. Compute the record of x and w in float32.",
        ),
        (
            lambda: jax.vmap(neuron.backprop, in_axes=(0, None))(X[None], W),
            TableError,
            "the gradients of x and w have the shapes [1, 2] and [1, 3]; the table",
        ),
        (
            lambda: neuron.backprop(np.ones(5, "float32"), np.ones(6, "float32")),
            TableError,
            "the gradients of x and w have the shapes [5] and [6]; the table",
        ),
        (
            lambda: retain_grads(neuron.forward, argnums=1)(X, W),
            TableError,
            "the record has no gradient of x; the table",
        ),
        (
            lambda: record_of({"a": np.ones(2)}),
            TableError,
            'the table "Chain rule and back propagation of a sigmoid neuron" is of the neuron, whose record has z,',
        ),
    ],
)
def test_a_record_that_the_table_is_not_of_is_an_error(record, kind, text):
    with pytest.raises(kind, match=f"^{re.escape(text)}"):
        compare(record(), reference.load())


X, W = jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1])


def record_of(values, grads=None, arg_grads=(), output=1.0):
    """A record of arrays as they are, its gradients ones."""
    grads = {name: np.ones_like(value) for name, value in values.items()} | (grads or {})
    return Record(np.float32(output), tuple(values), values, grads, arg_grads)


def verdict(got, want, **tolerances):
    comparison = compare(record_of({"a": np.asarray(got)}), {"a": np.asarray(want)}, **tolerances)
    return comparison.ok


def test_rows_are_in_program_order_and_gradients_from_the_output_back():
    rows = compare(neuron.backprop(X, W), neuron.chain_rule(X, W)).rows
    assert [row.label for row in rows] == [
        *("z", "k", "h", "f", "output"),
        *("f.grad", "h.grad", "k.grad", "z.grad", "arg[0].grad", "arg[1].grad"),
    ]
    assert all(row.ok for row in rows)


def test_the_documents_table_agrees_with_every_route():
    with jax.enable_x64(False):
        for route in routes.ROUTES.values():
            assert compare(route(X, W), reference.load()).ok
        assert compare(neuron.backprop(X, W), reference.load()).ok


def test_a_row_has_both_numbers_and_how_far_they_are_apart_at_the_worst_element():
    want = np.full((3, 4), 2, np.float32)
    got = want.copy()
    got[1, 2] = 3
    (row,) = [row for row in compare(record_of({"a": got}), {"a": want}).rows if not row.ok]
    assert (row.got, row.want, row.absolute, row.relative, row.index) == (3, 2, 1, 0.5, (1, 2))
    assert row.ulp == 2**22
    assert row.why == "1 of 12 differ"


@pytest.mark.parametrize("small", [1e-9, 1e-30])
def test_a_false_0_differs_however_small_the_truth(small):
    ones = np.ones(9, np.float32)
    want = np.append(ones, np.float32(small))
    assert not verdict(np.append(ones, np.float32(0)), want)
    assert not verdict(want, np.append(ones, np.float32(0)))
    assert verdict(np.append(ones, np.float32(0)), np.append(ones, np.float32(-0.0)))


@pytest.mark.parametrize("factor", [2, 0.5, -1, 0])
@pytest.mark.parametrize("shape", [(), (5,), (3, 7), (40, 300)])
def test_a_wrong_factor_differs_in_every_dtype(factor, shape, dtype):
    want = np.random.default_rng(0).normal(size=shape).astype(dtype)
    assert verdict(want, want)
    assert not verdict((want * np.asarray(factor, dtype)).astype(dtype), want)


def test_nan_and_infinity_agree_with_themselves_only_and_only_in_the_same_place():
    nan, inf = np.float32(np.nan), np.float32(np.inf)
    assert verdict(np.float32([1, nan, inf]), np.float32([1, nan, inf]))
    for other in ([nan, 1, inf], [1, 1, inf], [1, nan, -inf], [1, nan, 3e38], [1, inf, nan]):
        assert not verdict(np.float32([1, nan, inf]), np.float32(other))
        assert not verdict(np.float32([1, nan, inf]), np.float32(other), rtol=1e9, atol=1e9)


def test_a_cancelled_sum_may_be_off_by_the_rounding_of_its_summands():
    want = np.linspace(-1, 1, 64).astype(np.float32)
    assert verdict(want + np.float32(3e-7), want)
    assert not verdict(want + np.float32(1e-4), want)


def test_an_infinity_does_not_make_small_numbers_beside_it_agree():
    want = np.append(np.float32(np.inf), np.full(9, 1e-6, np.float32))
    assert verdict(want, want)
    assert not verdict(want * np.append(np.ones(9, np.float32), np.float32(1.001)), want)


def test_a_row_that_agrees_shows_its_worst_element_too():
    want = np.full((3, 4), 2, np.float32)
    got = want.copy()
    got[1, 2] = np.nextafter(want[1, 2], np.float32(3))
    row = next(row for row in compare(record_of({"a": got}), {"a": want}).rows if row.label == "a")
    assert (row.ok, row.ulp, row.index) == (True, 1, (1, 2))


@pytest.mark.parametrize("uncertainty", [0.0, np.zeros((300, 1000)), np.linspace(0, 1e-4, 300_000).reshape(300, 1000)])
def test_of_an_array_of_many_blocks_each_element_is_judged_by_itself(uncertainty):
    rng = np.random.default_rng(0)
    want = rng.uniform(1, 2, (300, 1000)).astype(np.float32)
    off = rng.uniform(0, 2e-4, want.shape)
    off[-1, -1] = 1e-2  # the worst, in the last block
    tolerance = Tolerance(0, rounding=uncertainty)
    got = (want + off).astype(np.float32)
    times = np.abs(got.astype(np.float64) - want) / (want * 2.0**-24 + uncertainty)
    sure = np.abs(times - 1) > 1e-3  # float32 divides too
    found, most = far(got, want, tolerance), worst(got, want, tolerance)
    np.testing.assert_array_equal(np.isin(np.flatnonzero(sure), found), (times > 1)[sure])
    assert (most.far, most.index) == (found.size, int(np.argmax(times)))


def test_given_tolerances_replace_the_default():
    got, want = np.float32([1, 2]), np.float32([1, 2.5])
    assert not verdict(got, want)
    assert verdict(got, want, rtol=0.2)
    assert verdict(got, want, atol=0.5)
    assert verdict(got, want, ulp=2**21)
    assert not verdict(got, want, rtol=0.19, atol=0)
    assert not verdict(got, want, ulp=2**21 - 1)
    assert not verdict(np.nextafter(want, np.float32(9)), want, ulp=0)
    assert verdict(want, want, ulp=0)


def test_a_missing_and_an_extra_name_are_differences():
    record = neuron.backprop(X, W)
    values = {name: np.asarray(value) for name, value in record.values.items()}
    comparison = compare(record, {"z": values["z"], "h": values["h"], "f": values["f"], "g": values["f"]})
    wrong = {row.label: row.why for row in comparison.rows if not row.ok}
    assert wrong == {"k": "extra: `want` has none", "g": "missing: `got` has none"}
    assert [row.label for row in comparison.rows] == ["z", "k", "h", "f", "g"]
    assert comparison.first_divergence.name == "k"


@pytest.mark.parametrize(
    ("other", "why"),
    [(np.ones(3, np.float32), "shape [2]; expected [3]"), (np.ones(2), "dtype float32; expected float64")],
)
def test_another_shape_or_dtype_is_a_difference_that_says_so(other, why):
    comparison = compare(record_of({"a": np.ones(2, np.float32)}), {"a": other})
    assert comparison.first_divergence.why == why
    with pytest.raises(DifferenceError, match=re.escape(why)):
        comparison.raise_if_different()


def test_no_gradient_beside_one_is_a_difference_with_its_note():
    values = {"a": np.ones(2, np.float32)}
    none = dataclasses.replace(record_of(values, {"a": None}), notes={"a": "does not reach the output"})
    assert compare(none, none).ok
    row = compare(none, record_of(values)).first_divergence
    assert (row.label, row.why) == ("a.grad", "`got` has no gradient: does not reach the output")


def branches(x):
    return lax.cond(x > 0, lambda x: tag(2 * x, "up"), lambda x: tag(-3 * x, "down"), x)


def test_another_branch_is_a_difference_of_its_own_before_its_value():
    got, want = (retain_grads(branches)(np.float32(x)) for x in (1, -1))
    comparison = compare(got, want)
    assert [row.label for row in comparison.rows] == [
        *("down.reached", "down", "up.reached", "up", "output", "up.grad", "down.grad", "arg[0].grad")
    ]
    assert comparison.first_divergence.label == "down.reached"
    assert comparison.first_divergence.why == "differs: another branch was taken"
    assert str(comparison).startswith("8 of 8 rows differ: the first branch to differ is down.reached, the first value")
    assert str(comparison.diagnose()[0]) == "down.reached: another branch: differs: another branch was taken"
    assert compare(got, got).ok


@pytest.mark.parametrize("tolerances", [{}, {"ulp": 9}, {"rtol": 9, "atol": 9}])
def test_no_tolerance_makes_of_one_branch_another(tolerances):
    record = retain_grads(branches)(np.float32(1))
    swapped = dataclasses.replace(record, reached={"up": np.False_, "down": np.False_})
    comparison = compare(swapped, record, **tolerances)
    assert [row.label for row in comparison.rows if not row.ok] == ["up.reached"]


def test_a_branch_is_compared_where_want_knows_it():
    record = retain_grads(branches)(np.float32(1))
    unknown = dataclasses.replace(record, reached={})
    assert compare(record, unknown).ok
    row = compare(unknown, record).first_divergence
    assert (row.label, row.why) == ("down.reached", "missing: `got` has none")


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32])
def test_integers_and_booleans_differ_and_are_diagnosed(dtype):
    got, want = np.array([1, 0, 1], dtype), np.array([1, 1, 1], dtype)
    comparison = compare(record_of({"a": got}, {"a": None}), record_of({"a": want}, {"a": None}))
    assert [row.label for row in comparison.rows if not row.ok] == ["a"]
    assert [found.rows for found in comparison.diagnose()] == [(1,)]


def test_the_tangent_of_an_integer_can_be_compared():
    value = np.zeros(2, jax.dtypes.float0)
    record = Record(np.float32(1), ("t",), {"t": value}, {"t": None}, (), notes={"t": "float0 has no gradient"})
    comparison = compare(record, record)
    assert comparison.ok
    assert "none in either: float0 has no gradient" in str(comparison)


def test_what_is_printed_names_what_differs_first_forward_and_backward():
    record = neuron.backprop(X, W)
    wrong = dataclasses.replace(record, values=record.values | {"h": -record.values["h"]})
    wrong = dataclasses.replace(wrong, grads=record.grads | {"k": record.grads["k"] * 2})
    text = str(compare(wrong, record))
    assert text.startswith(
        "2 of 11 rows differ: the first value to differ is h, the first gradient to differ is k.grad\n"
    )
    assert re.search(r"\n!  h +-2\.0 +2\.0 +4 +2 +2\.1e\+09 +differs\n", text), text
    assert re.search(r"\n   z +-2\.235\S+e-08 +-2\.235\S+e-08 +0 +0 +0 +ok\n", text), text


def test_a_value_too_small_to_show_its_summands_agrees_where_the_output_cannot_tell():
    record = neuron.backprop(X, W)
    off = dataclasses.replace(record, values=record.values | {"z": record.values["z"] * np.float32(1.00001)})
    assert compare(off, record).ok
    for wrong in (0.0, 2.0, -1.0):
        off = dataclasses.replace(record, values=record.values | {"z": record.values["z"] * np.float32(wrong)})
        assert compare(off, record).first_divergence.name == "z"


@pytest.mark.parametrize(
    ("got", "want", "options", "text"),
    [
        (1.0, {}, {}, "`got` is a float; expected a Record, as retain_grads(fun)(...) returns."),
        (None, {}, {}, "`want` is empty, so that anything would agree with it; expected a name at least."),
        (None, 3, {}, "`want` is a int; expected a Record, a table from jaxgrad.reference.load, or a dict of"),
        (None, {"z": "a"}, {}, "z is a str, 'a'; expected an array of numbers."),
        (None, {2.5: 1.0}, {}, "`want` has the key 2.5; expected a name, or an argument's position."),
        (
            None,
            {0: np.ones(2)},
            {},
            "`want` has an array for arg[0], and a Record holds no argument, only its gradient",
        ),
        (None, {"z": 1.0}, {"rtol": -1}, "rtol is -1; expected a number that is not negative."),
        (None, {"z": 1.0}, {"ulp": np.nan}, "ulp is nan; expected a number that is not negative."),
    ],
)
def test_what_cannot_be_compared_is_an_error(got, want, options, text):
    record = neuron.backprop(X, W)
    with pytest.raises(InputError, match=f"^{re.escape(text)}"):
        compare(record if got is None else got, want, **options)


def test_a_traced_record_is_an_error():
    with pytest.raises(InputError, match=re.escape("z is traced and has no number yet; expected arrays.")):
        jax.jit(lambda x: compare(neuron.backprop(x, W), {"z": 1.0}).ok)(X)
