"""Functions of Arrow's batches: the numbers are evaluate's, the schema is known before, bad input is one error."""

import pickle
from decimal import Decimal
from functools import partial

import cloudpickle
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest

from helpers.row_files import NAMES, inputs, read, run, save
from jaxgrad import InputError, arrow_mapper, batch, neuron
from jaxgrad._batch.arrow import program

W = np.array([0.5, -0.3, 0.1], np.float32)
ROWS = program.MOST + 4465  # a whole block and one that is padded


@pytest.fixture(scope="module")
def mapper():
    return neuron.arrow_mapper(W, columns=["a", "b"], carry={"id": pa.int64()}, on_bad_row="nan")


def table(x, **more):
    return pa.table({"id": np.arange(len(x)), "b": x[:, 1], "a": x[:, 0], **more})


def area(x, y):
    return {"area": x * y}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Rows, and what evaluate makes of them."""
    folder, x = tmp_path_factory.mktemp("rows"), inputs(ROWS)
    x[5, 0], x[70_000, 1], x[9] = np.nan, np.inf, (3e38, 3e38)
    assert run(save(folder / "x.npy", x), "-w", "0.5,-0.3,0.1", "-o", folder / "o.npy", "--on-bad-row", "nan") == 0
    return x, read(folder / "o.npy")


@pytest.mark.parametrize("start", [0, ROWS - 3000, ROWS - 257, ROWS - 1])
def test_the_numbers_are_evaluates_to_the_bit(mapper, evaluated, start):
    x, want = evaluated
    got = mapper(table(x).slice(start))
    assert got.schema == mapper.schema
    assert got.column_names == ["id", *NAMES]
    assert got["id"].to_pylist() == list(range(start, ROWS))
    for name in NAMES:
        assert got[name].to_numpy().tobytes() == want[name][start:].tobytes(), name


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_each_dtype_is_computed_in(dtype):
    x, w = inputs(40).astype(dtype), W.astype(dtype)
    got = neuron.arrow_mapper(w, columns=["a", "b"], keep=["f", "df/dw1"])(table(x))
    assert got.schema.types == [pa.from_numpy_dtype(dtype)] * 2
    wide, v = x.astype(float), w.astype(float)
    f = 1 / (1 + np.exp(-(wide @ v[:2] + v[2])))
    for name, want in {"f": f, "df/dw1": f * (1 - f) * wide[:, 1]}.items():
        # z is a sum of three terms, each of a few: its rounding, a few units, is that of the rest.
        # A chain of four operations.
        np.testing.assert_allclose(got[name].to_numpy(), want, rtol=10 * np.finfo(dtype).eps)


def test_the_schema_is_known_before_and_nothing_is_compiled_for_it():
    batched = batch(area)
    mapper = arrow_mapper(batched, ["x", "y"], carry={"id": "string"})
    assert mapper.schema == pa.schema([pa.field("id", pa.string()), pa.field("area", pa.float32(), nullable=False)])
    assert batched._new._cache_size() == 0


def test_any_number_of_rows_is_a_few_programs():
    traced = []

    def square(x):
        traced.append(x)
        return x * x

    batched = batch(square)
    mapper = arrow_mapper(batched, ["x"], dtype="float32")
    for rows in [*range(0, 2000, 7), program.MOST - 1, program.MOST + 1, 3 * program.MOST + 100]:
        x = np.arange(rows, dtype=np.float32)
        np.testing.assert_array_equal(mapper(pa.table({"x": x}))["output"].to_numpy(), x * x)
    sizes = {256 << i for i in range(4)} | {program.MOST}
    assert batched._new._cache_size() == len(sizes)
    assert len(traced) == 1


def test_each_kind_of_result_is_a_column():
    def fun(x, y):
        return {"vector": jnp.stack([y, 2 * y, 3 * y]), "is": y > 2, "n": {"deep": jnp.int32(1)}, "m": x[:, None] * x}

    got = arrow_mapper(batch(fun), [["a", "b"], "y"], dtype="float32")(
        pa.table({"a": [1, 2], "b": [3, 4], "y": [2.0, 3.0]})
    )
    assert got.to_pylist() == [
        {"is": False, "m": [[1, 3], [3, 9]], "n.deep": 1, "vector": [2, 4, 6]},
        {"is": True, "m": [[4, 8], [8, 16]], "n.deep": 1, "vector": [3, 6, 9]},
    ]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, 2, 3], pa.int64()),
        pa.array([1, 2, 3], pa.uint8()),
        pa.array([1, 2, 3], pa.float16()),
        pa.array([1.0, 2.0, 3.0], pa.float64()),
        pa.array([Decimal(1), Decimal(2), Decimal(3)]),
        pa.array([1.0, 2.0, 3.0]).dictionary_encode(),
        pa.chunked_array([[1.0], [2.0, 3.0]]),
    ],
    ids=lambda column: str(column.type),
)
def test_each_kind_of_number_is_read(column):
    mapper = arrow_mapper(batch(area), ["x", "x"], dtype="float32")
    assert mapper(pa.table({"x": column}))["area"].to_pylist() == [1, 4, 9]


@pytest.mark.parametrize("kind", [pa.int64(), pa.float32(), pa.float16(), pa.decimal128(5, 2), pa.null()], ids=str)
def test_a_missing_number_is_a_bad_row(kind):
    number = None if kind == pa.null() else 3
    x = pa.array([number and np.float16(3) if kind == pa.float16() else number, None, number], kind)
    rows = pa.table({"id": [7, 8, 9], "x": x})
    good = [7, 9] if number else []
    skip = arrow_mapper(batch(area), ["x", "x"], dtype="float32", carry={"id": "int64"}, on_bad_row="skip")(rows)
    assert skip.to_pydict() == {"id": good, "area": [9.0] * len(good)}
    nan = arrow_mapper(batch(area), ["x", "x"], dtype="float32", on_bad_row="nan")(rows)["area"].to_numpy()
    assert np.isnan(nan).tolist() == [not number, True, not number]
    with pytest.raises(InputError, match=r'row . of the batch, column "x": it is missing; expected numbers'):
        arrow_mapper(batch(area), ["x", "x"], dtype="float32")(rows)


def test_bad_rows_are_left_out_of_every_block():
    x = inputs(2 * program.MOST + 10)
    bad = [0, program.MOST - 1, program.MOST, 2 * program.MOST + 9]
    x[bad, 1] = np.nan
    mapper = neuron.arrow_mapper(W, columns=["a", "b"], keep=["df/dx0"], carry={"id": "int64"}, on_bad_row="skip")
    got, good = mapper(table(x)), np.delete(np.arange(len(x)), bad)
    assert got["id"].to_pylist() == good.tolist()
    want = neuron.arrow_mapper(W, columns=["a", "b"], keep=["df/dx0"])(table(x[good]))
    assert got["df/dx0"].to_pylist() == want["df/dx0"].to_pylist()


def test_nan_and_infinity_are_numbers_to_a_function_of_its_own():
    x = pa.table({"x": [np.nan, np.inf, 2.0]})
    got = arrow_mapper(batch(area), ["x", "x"], dtype="float32")(x)["area"].to_numpy()
    np.testing.assert_array_equal(got, np.float32([np.nan, np.inf, 4]))


@pytest.mark.parametrize("rows", ["table", "batch"])
def test_no_rows_are_no_rows(mapper, rows):
    none = table(inputs(0)) if rows == "table" else table(inputs(1)).to_batches()[0].slice(1)
    assert mapper(none).equals(mapper.schema.empty_table())


def test_an_iterable_of_batches_gives_batches(mapper):
    rows = table(inputs(1000))
    reader = pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches(max_chunksize=300))
    found = mapper(reader)
    assert next(found).num_rows == 300
    assert pa.Table.from_batches([*mapper(rows.to_batches(300))]).equals(mapper(rows).combine_chunks())


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
@pytest.mark.parametrize("used", [False, True])
def test_a_mapper_can_be_pickled_and_is_one_program_in_a_process(pickler, used):
    own = arrow_mapper(batch(partial(area, y=np.float32(3))), ["x"], dtype="float32")
    rows = pa.table({"x": [1.0, 2.0]})
    if used:
        own(rows)
    one, other = (pickle.loads(pickler.dumps(own)) for _ in range(2))
    assert one(rows).equals(own(rows))
    assert one.schema == own.schema
    assert one._program is other._program is own._program


def test_a_lambda_is_pickled_by_value():
    pickled = cloudpickle.dumps(arrow_mapper(batch(lambda x: 2 * x), ["x"], dtype="float32"))
    program._first.cache_clear()  # as in another process
    assert pickle.loads(pickled)(pa.table({"x": [4.0]}))["output"].to_pylist() == [8]


def test_neurons_of_other_weights_share_a_program():
    one, other = (neuron.arrow_mapper(w, columns=["a", "b"], keep=["f"]) for w in (W, 2 * W))
    assert one._program is other._program
    assert one(table(inputs(3)))["f"] != other(table(inputs(3)))["f"]


def test_threads_use_one_mapper_at_once():
    from concurrent.futures import ThreadPoolExecutor

    mapper, parts = neuron.arrow_mapper(W, columns=["a", "b"]), [table(inputs(5000, seed)) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert [a.equals(mapper(p)) for a, p in zip(pool.map(mapper, parts * 5), parts * 5, strict=True)] == [True] * 20


def of_neuron(**options):
    return lambda: neuron.arrow_mapper(**{"w": W, "columns": ["a", "b"], **options})


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (of_neuron(columns="ab"), r"columns is 'ab'; expected a list of the inputs' names"),
        (of_neuron(columns=[]), r"columns is \[\]; expected a list"),
        (of_neuron(columns=["a"]), r"w has shape \(3,\) and there are 1 columns of inputs; expected \(2,\)"),
        (of_neuron(w=[1.0, np.inf, 0.0]), r"weight 1 is not a finite float32"),
        (of_neuron(w=[1e9, 1.0, 0.0], dtype="float16"), r"weight 0 is not a finite float16"),
        (of_neuron(w=np.ones(3, np.int32)), r"the weights' dtype is int32; expected one of float16, float32, float64"),
        (of_neuron(keep=["g"]), r'there is no quantity "g"; expected names or globs of z, k, h, f, df/dz'),
        (of_neuron(carry={"id": "int"}), r'`carry` has \'int\' for "id"; expected a type of pyarrow'),
        (of_neuron(carry={"f": "int64"}), r'`carry` has "f", and so have the results'),
        (of_neuron(on_bad_row="null"), r'`on_bad_row` is \'null\'; expected "error", "skip" or "nan"'),
        (lambda: arrow_mapper(area, ["x", "y"]), r"batched is a function; expected what jaxgrad.batch returns"),
        (lambda: arrow_mapper(batch(area), []), r"columns is empty"),
        (lambda: arrow_mapper(batch(area), ["x", "y"], dtype=complex), r"dtype is complex128; expected a real one"),
        (
            lambda: arrow_mapper(batch(lambda x: x * 1j), ["x"]),
            r'the result "output" is complex64, which Arrow has not',
        ),
        (
            lambda: arrow_mapper(batch(lambda x: x > 1), ["x"], on_bad_row="nan"),
            r'`on_bad_row` is "nan" and the result "output" is bool, which has no NaN',
        ),
    ],
)
def test_what_cannot_be_made_is_an_error_before_the_first_batch(make, text):
    with pytest.raises(InputError, match=text):
        make()


X = {"a": [1.0, 2.0], "b": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("options", "rows", "text"),
    [
        ({}, pa.table(X), r'column "a" is double, which float32 would silently .*`dtype="float64"`.*"float32"`'),
        ({}, pa.table({"a": [1.0]}), r'the batch has no column "b"; expected one, among a\.'),
        ({}, pa.table([[1.0], [2.0], [3.0]], ["a", "b", "a"]), r'the batch has two columns "a"'),
        ({}, pa.table({**X, "a": ["1", "2"]}), r'column "a" is string, and float32 is computed in; .*Cast the column'),
        ({}, pa.table({**X, "a": [True, False]}), r'column "a" is bool'),
        ({}, pa.table({**X, "a": [[1.0], [2.0]]}), r'column "a" is list<'),
        ({"carry": {"id": "int64"}}, pa.table(X), r'no column "id"'),
        ({"carry": {"id": "int64"}}, pa.table({**X, "id": ["x", "y"]}), r'column "id" is string; expected int64'),
        ({}, pa.table({**X, "a": [1.0, 1e39]}), r'row 1 .*"a": it is 1e\+39, which float32 cannot hold; exp'),
        ({}, pa.table({**X, "b": [np.nan, np.inf]}), r'row 0 of the batch, column "b": it is nan; expected finite'),
        ({}, pa.table({"a": [1.0, None], "b": [None, 2.0]}), r'row 0 of the batch, column "b": it is missing'),
        ({}, pa.table({"a": [0.0, 3e38], "b": [0.0, -3e38]}), r"row 1 of the batch: its z, or a term of it, overflows"),
        ({}, pa.table(X).to_pydict(), r"the batch is a dict; expected a pyarrow.RecordBatch or Table"),
        ({}, 3, r"the batch is a int; expected"),
    ],
)  # fmt: skip
def test_a_batch_that_cannot_be_computed_is_one_error(options, rows, text):
    narrow = {} if "silently" in text else {"dtype": "float32"}
    w = np.array([10.0, -10.0, 0.0], np.float32)
    with pytest.raises(InputError, match=text):
        neuron.arrow_mapper(w, columns=["a", "b"], **narrow, **options)(rows)


@pytest.mark.parametrize(("kind", "value"), [("int8", 128), ("uint8", -1), ("int32", 1 << 40)])
def test_an_integer_that_does_not_fit_is_a_bad_row(kind, value):
    mapper = arrow_mapper(batch(lambda x: x), ["x"], dtype=kind)
    assert mapper(pa.table({"x": [1, 2]}))["output"].to_pylist() == [1, 2]
    with pytest.raises(InputError, match=rf'row 1 of the batch, column "x": it is {value}, which {kind} cannot hold'):
        mapper(pa.table({"x": [1, value]}))
