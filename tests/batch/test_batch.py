"""batch: every row as vmap has it, by one trace, into memory handed back or left by results that are gone."""

import gc
import os
import pickle
import subprocess
import sys
from contextlib import contextmanager

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import on_devices
from jaxgrad import InputError, batch, neuron, retain_grads, tag
from jaxgrad._batch.memory import Memory
from jaxgrad._program.quick_jit import quick_jit

W = np.array([0.5, -0.3, 0.1], np.float32)
LARGE = 2_200_000  # rows of float32 whose memory is worth lending


def rows(count, seed=0, width=2):
    return np.random.default_rng(seed).standard_normal((count, width), dtype=np.float32)


@contextmanager
def compilations():
    """Counts what XLA compiles."""
    found = []

    def listen(event, _seconds, **_):
        if "backend_compile" in event:
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture(scope="module")
def batched():
    return batch(neuron.backprop, (0, None))


@pytest.fixture(scope="module")
def plain():
    return jax.jit(jax.vmap(neuron.backprop, (0, None)))


def same(got, want):
    chex.assert_trees_all_equal_structs(got, want)
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize("count", [0, 1, 600_001])
def test_every_row_equals_the_plain_vmap_to_the_bit(count, batched, plain):
    x = rows(count)
    got, want = batched(x, W), plain(x, W)
    same(got, want)
    same(batched(x, W, out=got), want)


def test_any_number_of_rows_takes_one_trace_and_one_compilation_each(plain):
    fun = chex.assert_max_traces(lambda x, w: neuron.quantities(neuron.backprop(x, w)), n=1)
    batched = batch(fun, (0, None))
    every = rows(300_000)
    inputs = [every[:count] for count in (3, 300_000, 8192)]
    truth = np.asarray(plain(every, W).output)
    with compilations() as found:
        got = [batched(x, W)["f"] for x in inputs]
    assert len(found) == len(inputs)
    for x in inputs:
        jax.tree.map(lambda leaf: leaf.delete(), batched(x, W))  # memory to use again: another program for large ones
    with compilations() as found:
        got = [batched(x, W)["f"] for x in inputs]
    assert len(found) <= 1
    for x, result in zip(inputs, got, strict=True):
        np.testing.assert_allclose(result, truth[: len(x)], rtol=3e-7)  # another number of rows may round z otherwise


def test_the_counter_of_compilations_counts():
    with compilations() as found:
        jax.jit(lambda x: x * 2 + 1)(jnp.arange(7))
    assert found


def test_out_is_written_over_in_place_and_gone(batched):
    x = jnp.asarray(rows(50_000))
    last = batched(x, W, out=batched(x, W))
    places = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(last)}
    result = batched(x + 1, W, out=last)
    assert {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(result)} == places
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(last))
    same(result, batched(x + 1, W))


def test_what_was_read_from_a_result_stays_when_its_memory_is_handed_back():
    batched = batch(jnp.exp)
    x = rows(20_000, width=1)
    last = batched(x)
    read = np.asarray(last)
    kept = read.copy()
    batched(x + 1, out=last)
    np.testing.assert_array_equal(read, kept)


def test_results_do_not_change_with_the_rows_they_came_from():
    x = rows(40_000)
    result = jax.block_until_ready(batch(lambda row: row)(x))
    kept = x.copy()
    x[:] = 0
    np.testing.assert_array_equal(result, kept)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint32", "float16", "bfloat16", "complex64", "int4"])
def test_every_dtype_comes_back_as_it_went_in(dtype):
    x = jnp.arange(40_000).astype(dtype)
    result = batch(lambda row: (row, row == row))(x)
    same(result, (x, jnp.ones(40_000, bool)))


def test_keys_are_rows_too():
    keys = jax.random.split(jax.random.key(0), 300)
    draw = lambda key: jax.random.normal(key, 3)  # noqa: E731
    same(batch(draw)(keys), jax.jit(jax.vmap(draw))(keys))


@pytest.mark.parametrize("batch_size", [1, 7, 300, 1000, 5000])
def test_a_batch_size_bounds_what_is_computed_at_a_time(batch_size):
    seen, ran = [], []

    @jax.custom_batching.custom_vmap
    def spy(x):
        return x * 2

    @spy.def_vmap
    def rule(size, _, x):
        seen.append(size)
        jax.debug.callback(lambda: ran.append(size))
        return x * 2, True

    x = np.arange(1000.0, dtype=np.float32)
    np.testing.assert_array_equal(batch(spy, batch_size=batch_size)(x), x * 2)
    assert max(seen) <= batch_size
    jax.effects_barrier()
    assert len(ran) == -(-1000 // min(batch_size, 1000))


@pytest.mark.parametrize("in_axes", [(0, None), [0, {"w": None}], (1, None), (-1, {"w": None})])
def test_axes_are_read_as_vmap_reads_them(in_axes):
    def fun(x, w):
        return neuron.chain_rule(x, w["w"])

    args = (rows(700) if in_axes[0] == 0 else rows(700).T, {"w": W})
    same(batch(fun, in_axes)(*args), jax.jit(jax.vmap(fun, tuple(in_axes)))(*args))


@settings(max_examples=8, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 17), st.lists(st.sampled_from([0, 1, None]), min_size=3, max_size=3), st.data()
)
def test_any_axes_and_blocks_give_what_vmap_gives(count, batch_size, axes, data):
    if all(axis is None for axis in axes):
        axes[0] = 0
    draw = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    shapes = [(3,) if axis is None else tuple(np.insert([3], axis, count)) for axis in axes]
    # Whole numbers: their sums and products are exact, so that a fused multiply-add rounds nothing otherwise.
    args = [draw.integers(-99, 99, shape).astype(np.float32) for shape in shapes]

    def fun(a, b, c):
        return {"sum": a + b * c, "none": None, "one": a.max(), "constant": jnp.float32(2)}

    want = quick_jit(jax.vmap(fun, tuple(axes)))(*args)
    batched = batch(fun, tuple(axes), batch_size=batch_size)
    got = batched(*args)
    same(got, want)
    same(batched(*args, out=got), want)


def test_a_record_of_retained_gradients_can_be_batched():
    fun = retain_grads(neuron.forward)
    x = rows(9000)
    same(batch(fun, (0, None))(x, W), jax.jit(jax.vmap(fun, (0, None)))(x, W))


def test_a_batched_function_can_be_traced():
    batched = batch(neuron.sigmoid)
    z = jnp.linspace(-3, 3, 500)
    np.testing.assert_array_equal(jax.jit(batched)(z), batched(z))
    slopes = jax.jit(jax.grad(lambda z: batched(z).sum()))(z)
    np.testing.assert_array_equal(slopes, jax.jit(jax.vmap(jax.grad(neuron.sigmoid)))(z))


def test_a_function_that_closes_over_what_is_traced_can_be_batched():
    x = np.arange(5.0, dtype=np.float32)
    assert jax.grad(lambda w: batch(lambda x: w * x)(x).sum())(2.0) == 10
    assert jax.jit(lambda w: batch(lambda x: w * x)(x).sum())(2.0) == 20


def test_float64_is_kept_on_every_core():
    with jax.enable_x64(True):
        x = np.random.default_rng(0).standard_normal((300_000, 2))
        result = batch(neuron.backprop, (0, None))(x, W.astype(np.float64))
        assert result.output.dtype == np.float64
        same(result, jax.jit(jax.vmap(neuron.backprop, (0, None)))(x, W.astype(np.float64)))
    assert batch(jnp.exp)(np.zeros(3)).dtype == np.float32


def test_settings_that_change_results_are_not_mixed_up():
    batched = batch(lambda x: x + jnp.arange(3).astype(float).sum())
    assert batched(np.zeros(2, np.float32)).dtype == np.float32
    with jax.enable_x64(True):
        assert batched(np.zeros(2, np.float32)).dtype == np.float64


def test_results_are_written_into_numpy_arrays(tmp_path):
    batched = batch(lambda x: {"sum": x.sum(), "twice": 2 * x})
    x = rows(400_001)
    out = {"sum": np.zeros(400_001, np.float32), "twice": np.memmap(tmp_path / "out", np.float32, "w+", shape=x.shape)}
    assert batched(x, out=out) is out
    same(jax.tree.map(np.asarray, out), batched(x))


def test_results_are_written_into_numpy_arrays_from_devices_too():
    mesh = jax.make_mesh((1,), ("rows",))
    out = np.zeros(300, np.float32)
    assert batch(jnp.exp, mesh=mesh)(np.arange(300.0, dtype=np.float32), out=out) is out
    np.testing.assert_array_equal(out, jnp.exp(jnp.arange(300.0)))


def test_rows_are_read_from_a_memory_map(tmp_path, batched):
    np.save(tmp_path / "rows.npy", rows(20_000))
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    same(batched(mapped, W), batched(rows(20_000), W))


def test_a_stream_has_every_result_in_its_order(batched):
    x = rows(1000)
    blocks = [(x[start : start + 300], W) for start in range(0, 1000, 300)]
    results = list(batched.stream(iter(blocks)))
    assert [len(result.output) for result in results] == [300, 300, 300, 100]
    same(jnp.concatenate([result.output for result in results]), batched(x, W).output)


def test_a_stream_reads_one_call_ahead_and_no_more():
    read = []

    def calls():
        for i in range(100):
            read.append(i)
            yield (np.full(3, i, np.float32),)

    stream = batch(jnp.exp).stream(calls())
    next(stream)
    assert len(read) <= 2


def test_an_error_in_what_a_stream_reads_reaches_its_user_after_what_was_read_before():
    def calls():
        yield (np.zeros(3, np.float32),)
        raise OSError("the disk is gone")

    stream = batch(jnp.exp).stream(calls())
    assert next(stream).shape == (3,)
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream)


@pytest.mark.parametrize(
    ("types", "count"), [("Auto", 1), ("Auto", 7), ("Auto", 100_000), ("Explicit", 7), ("Explicit", 8)]
)
def test_rows_over_four_devices_equal_those_of_one(count, types, four_devices):
    assert four_devices[types, count] == "equal"


@pytest.fixture(scope="module")
def four_devices():
    """What a process with four CPU devices, a mesh of two by two, finds: (kind of axes, rows) -> "equal"."""
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "4"}
    script = on_devices.__file__
    done = subprocess.run([sys.executable, "-W", "error", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = (line.split() for line in done.stdout.splitlines())
    return {(types, int(count)): verdict for types, count, verdict in lines}


ERRORS = [
    (0, (np.float32(3),), r"args\[0\] has shape \(\), no axis 0 for its rows; where every row shares it"),
    ((0, 2), (np.ones(3), np.ones((3, 2))), r"args\[1\] has shape \(3, 2\), no axis 2"),
    ((0, 0), (np.ones(3), np.ones(4)), r"args\[0\] has 3 rows and args\[1\] has 4; expected as many in each"),
    ((0,), (np.ones(3), np.ones(3)), r"there are 2 arguments and in_axes=\(0,\) is for 1"),
    ((None, None), (np.ones(3), np.ones(3)), r"no argument has rows: in_axes is None for all of them"),
    (("a", None), (np.ones(3), np.ones(3)), r"in_axes has 'a' for args\[0\]; expected the number of an axis"),
    (({"b": 0}, 0), ({"a": np.ones(3)}, np.ones(3)), r"in_axes=.* does not fit the arguments"),
    ((0, 0), (np.ones(3), "rows"), r"args\[1\] is a str; expected an array or a number"),
]


@pytest.mark.parametrize(("in_axes", "args", "text"), ERRORS)
def test_arguments_that_are_no_rows_are_an_error(in_axes, args, text):
    with pytest.raises(InputError, match=text):
        batch(lambda *args: args[0], in_axes)(*args)


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "8"])
def test_a_batch_size_that_is_none_is_an_error(size):
    with pytest.raises(InputError, match=r"batch_size is .*; expected a positive number of rows, or None"):
        batch(jnp.exp, batch_size=size)


def test_an_out_that_is_no_result_is_an_error_and_is_kept():
    batched = batch(lambda x: {"y": x * 2})
    x = rows(100)
    right = batched(x)
    for out, text in [
        ([right["y"]], "out is .*; expected a result of this function"),
        ({"y": "y"}, "out holds a str; expected the arrays of the last result, or NumPy arrays, and not both"),
        ({"y": np.zeros((99, 2), np.float32)}, r"out holds float32\[99, 2\] where this result is float32\[100, 2\]"),
        ({"y": np.broadcast_to(np.float32(0), (100, 2))}, "out holds a NumPy array that is read-only"),
        (batched(x[:50]), r"out holds float32\[50, 2\] where this result is float32\[100, 2\]"),
        ({"y": right["y"].astype(int)}, r"out holds int32\[100, 2\] where this result is float32"),
    ]:
        with pytest.raises(InputError, match=text):
            batched(x, out=out)
    last = batched(x, out=right)
    with pytest.raises(InputError, match="out was used before; expected the last result"):
        batched(x, out=right)
    twice = batch(lambda x: (x * 2, x * 2))
    with pytest.raises(InputError, match="out holds one array twice"):
        twice(x, out=(last["y"], last["y"]))
    assert not last["y"].is_deleted()


def test_an_out_that_shares_memory_is_an_error_and_one_row_by_row_is_none():
    twice, memory = batch(lambda x: (x * 2, x * 3)), np.zeros((9, 2), np.float32)
    x = np.arange(9, dtype=np.float32)
    with pytest.raises(InputError, match="out holds one array twice"):
        twice(x, out=(memory[:, 0], memory[:, 0]))
    assert twice(x, out=(memory[:, 0], memory[:, 1]))[1] is not None
    np.testing.assert_array_equal(memory, np.stack([x * 2, x * 3], 1))

    more = batch(lambda x: x + 1, batch_size=2)
    for out, read in ((x[1:], x[:-1]), (x[:-1], x[1:])):
        with pytest.raises(InputError, match="out shares memory with an argument"):
            more(read, out=out)
    square = np.eye(3, dtype=np.float32)
    with pytest.raises(InputError, match="out shares memory with an argument"):
        batch(lambda x: x + 1, 1)(square, out=square)
    np.testing.assert_array_equal(more(x, out=x), np.arange(1, 10))
    last = more(x)
    with pytest.raises(InputError, match="out shares memory with an argument"):
        more(last, out=last)
    assert not last.is_deleted()


def test_results_are_on_the_device_of_the_rows():
    batched, last = batch(jnp.exp), jax.devices()[-1]
    x = np.arange(300, dtype=np.float32)
    assert batched(jax.device_put(x, last)).devices() == {last}
    assert batched(jnp.asarray(x)).devices() == {jax.devices()[0]}
    with pytest.raises(ValueError, match="incompatible devices"):
        batch(jnp.add)(jax.device_put(x, jax.devices()[0]), jax.device_put(x, last))


def test_an_out_of_numpy_that_would_not_be_written_is_an_error():
    with pytest.raises(InputError, match="out is NumPy's and what it is for is traced"):
        jax.jit(lambda x: batch(jnp.exp)(x, out=np.zeros(3, np.float32)))(np.zeros(3, np.float32))


@pytest.mark.parametrize("count", [5, LARGE])
def test_a_stream_may_read_each_call_into_the_same_memory(count):
    memory = np.empty(count, np.float32)

    def calls():
        for i in range(6):
            memory[:] = i
            yield (memory,)

    assert [result[-1].item() for result in batch(lambda x: x + 1).stream(calls())] == [1, 2, 3, 4, 5, 6]


def test_a_stream_keeps_its_users_settings():
    seen = set()

    def fun(x):
        seen.add((jax.config.jax_default_matmul_precision, jnp.arange(3.0).dtype.name))
        return x + 1

    with jax.default_matmul_precision("float32"), jax.enable_x64(True):
        found = list(batch(fun).stream((np.zeros(count, np.float32),) for count in range(1, 5)))
    assert [len(result) for result in found] == [1, 2, 3, 4]
    assert seen == {("float32", "float64")}


def test_an_error_of_the_function_is_raised_as_it_is(batched):
    with pytest.raises(InputError, match="expected w of shape"):
        batched(rows(10), W[:2])


def test_tags_keep_their_names_over_rows():
    record = batch(retain_grads(lambda x: tag(jnp.sin(x), "s") ** 2))(np.linspace(0, 1, 300, dtype=np.float32))
    assert record.names == ("s",)
    assert record.grads["s"].shape == (300,)


def places(results):
    return {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(results)}


def warmed(fun, *args):
    """A Batched that lends its memory from now on."""
    batched = batch(fun)
    batched(*args)
    return batched


@pytest.fixture
def large():
    return jnp.arange(LARGE, dtype=jnp.float32)


def test_the_memory_of_results_that_are_gone_holds_the_next_ones(large):
    batched = warmed(lambda x: (x * 2, x + 1), large)
    results = batched(large)
    first = places(results)
    del results
    again = batched(large + 1)
    assert places(again) == first
    same(again, ((large + 1) * 2, large + 2))
    assert places(batched(large)).isdisjoint(first)


def read_by_numpy(result):
    return np.asarray(result)


def read_by_a_shard(result):
    return result.addressable_shards[0].data


def read_by_dlpack(result):
    return np.from_dlpack(result)


def read_by_another_array(result):
    return jax.device_put(result)


@pytest.mark.parametrize("reader", [read_by_numpy, read_by_a_shard, read_by_dlpack, read_by_another_array])
def test_memory_that_anything_refers_to_is_not_lent_again(reader, large):
    batched = warmed(lambda x: x * 2, large)
    kept = reader(batched(large))
    for i in range(4):
        batched(large + i)
    np.testing.assert_array_equal(kept, np.arange(LARGE) * 2)


def test_memory_that_a_computation_reads_is_not_lent_again(large):
    batched = warmed(lambda x: x * 2, large)
    slow = jax.jit(lambda x: jax.lax.fori_loop(0, 20, lambda _, y: jnp.sin(y) * 0 + x, x))
    later = [slow(batched(large + i)) for i in range(4)]
    for i, found in enumerate(later):
        np.testing.assert_array_equal(found, (large + i) * 2)


@pytest.mark.parametrize("is_committed", [False, True])
def test_results_that_are_lent_stay_on_their_device_as_firmly_as_the_rows(is_committed, large):
    device = jax.devices()[-1 if is_committed else 0]
    x = jax.device_put(large, device) if is_committed else large
    batched = warmed(lambda x: x * 2, x)
    for _ in range(3):
        result = batched(x)
        assert (result.devices(), result.committed) == ({device}, is_committed)
        same(result, large * 2)


def test_a_part_of_a_result_that_is_kept_is_kept(large):
    batched = warmed(lambda x: (x * 2, x + 1), large)
    kept = [batched(large + i)[0] for i in range(5)]
    for i, found in enumerate(kept):
        np.testing.assert_array_equal(found, (large + i) * 2)
    same(batched(large), (large * 2, large + 1))


def test_one_call_of_memory_is_kept_for_each_of_two_shapes_and_none_without_the_function(large):
    batched = warmed(lambda x: x * 2, large)
    results = [batched(large[i:]) for i in (0, 0, 0, 1, 1, 2, 2, 2)]
    assert large_memory() >= len(results) + 1
    del results
    assert large_memory() == 3  # with that of `large`
    del batched
    assert large_memory() == 1


def large_memory():
    """How many pieces of memory of about LARGE rows JAX holds."""
    jnp.zeros(()).block_until_ready()  # when it is called next, JAX lets go of the views
    gc.collect()
    return len({array.unsafe_buffer_pointer() for array in jax.live_arrays() if abs(array.size - LARGE) < 9})


def test_a_result_that_is_lent_can_be_out(large):
    batched = warmed(lambda x: (x * 2, x + 1), large)
    last = batched(large)
    first = places(last)
    result = batched(large + 1, out=last)
    assert all(leaf.is_deleted() for leaf in last)
    assert places(result) == first
    same(result, ((large + 1) * 2, large + 2))
    lent = batched(large)
    read = np.asarray(lent[0])
    same(batched(large + 2, out=lent), ((large + 2) * 2, large + 3))
    np.testing.assert_array_equal(read, np.arange(LARGE) * 2)
    kept = batched(large)
    with pytest.raises(InputError, match="expected the result of a call with as many rows"):
        batched(large[1:], out=kept)
    same(kept, (large * 2, large + 1))


def test_a_result_that_is_lent_can_be_donated_to_another_function(large):
    batched = warmed(lambda x: x * 2, large)
    double = jax.jit(lambda x: x * 2, donate_argnums=0)
    for i in range(3):
        np.testing.assert_array_equal(double(batched(large + i)), (large + i) * 4)


def test_a_result_that_is_an_argument_is_never_written_over(large):
    batched = warmed(lambda x: (x, x * 2), large)
    for _ in range(4):
        batched(large)
    np.testing.assert_array_equal(large, np.arange(LARGE))


def test_large_results_of_every_dtype_come_back(large):
    for dtype in ("bool", "bfloat16", "complex64", "int8"):
        x = jnp.tile(large, 4).astype(dtype)  # as many bytes of one-byte dtypes
        batched = warmed(lambda row: (row + row, row == row), x)
        for _ in range(3):
            same(batched(x), (x + x, jnp.ones(4 * LARGE, bool)))
        assert bool(batched._memory) == (dtype != "bfloat16")  # which is no dtype of NumPy's own


@pytest.mark.parametrize("count", [LARGE // 3, LARGE])  # what a call alone does not lend, a stream does
def test_a_stream_of_large_results_uses_memory_again(count, large, monkeypatch):
    rows = large[:count]
    taken, take = [], Memory.take
    monkeypatch.setattr(Memory, "take", lambda *args: taken.append(take(*args)) or taken[-1])
    for i, result in enumerate(batch(lambda x: x * 2).stream((rows + i,) for i in range(24))):
        np.testing.assert_array_equal(result, (rows + i) * 2)
    assert sum(memory is not None for memory in taken) >= 16  # on a loaded machine JAX lets go of some late


@pytest.mark.parametrize(("count", "lends"), [(LARGE // 3, False), (LARGE, True)])
def test_memory_is_lent_where_new_memory_costs_more(count, lends, large):
    batched = warmed(lambda x: x * 2, large[:count])
    batched(large[:count])
    assert bool(batched._memory) == lends


@pytest.mark.parametrize("x64", [False, True])
def test_settings_that_change_large_results_are_not_mixed_up(x64, large):
    batched = warmed(lambda x: x * jnp.arange(3).astype(float).sum(), large)
    for _ in range(3):
        with jax.enable_x64(x64):
            assert batched(large).dtype == (np.float64 if x64 else np.float32)
        assert batched(large).dtype == np.float32


@pytest.mark.parametrize("count", [5, LARGE])
def test_numpy_rows_inside_a_trace_are_rows(count):
    x = np.ones(count, np.float32)
    batched = batch(lambda x: x * 3)
    for _ in range(3):
        assert jax.jit(lambda s: (batched(x) * s)[0])(2.0) == 6
        assert jax.eval_shape(lambda: batched(x)).shape == x.shape
        assert jax.lax.scan(lambda s, _: (s + batched(x)[0], None), 0.0, length=3)[0] == 9
        assert batched(x)[-1] == 3


@pytest.mark.parametrize("count", [5, LARGE])
def test_jax_can_be_debugged(count):
    x = np.ones(count, np.float32)
    batched = batch(lambda x: x * 3)
    for _ in range(3):
        with jax.disable_jit():
            assert batched(x)[-1] == 3
        with jax.debug_nans(True):
            assert batched(x)[-1] == 3
            with pytest.raises(FloatingPointError):
                batched(x * np.nan)
        assert batched(x)[-1] == 3


@pytest.mark.parametrize("count", [5, LARGE])
def test_a_batched_function_can_be_pickled_before_it_is_used_and_after(count):
    x = np.ones(count, np.float32)
    batched = batch(neuron.sigmoid)
    for _ in range(3):
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(batched))(x), batched(x))


def test_a_batch_size_of_more_rows_than_there_are_is_all_of_them():
    assert batch(jnp.exp, batch_size=2**31)(np.zeros(1000, np.float32)).shape == (1000,)


def test_axes_and_sizes_may_be_numbers_of_numpys():
    x = rows(9)
    same(batch(jnp.sum, np.int64(1), batch_size=np.int32(4))(x), batch(jnp.sum, 1)(x))


def test_programs_of_many_numbers_of_rows_are_let_go(monkeypatch):
    monkeypatch.setattr("jaxgrad._batch.program.MOST_PROGRAMS", 4)
    batched = batch(lambda x: x + 1)
    few, more = [np.zeros(count, np.float32) for count in (1, 2, 3)], np.zeros(4, np.float32)
    last = [batched(x) for x in few]
    batched(few[0], out=last[0])  # the fourth program
    with compilations() as found:
        last = [batched(x) for x in few]
    assert not found
    batched(more)
    assert len(batched(few[1], out=last[1])) == 2
    with compilations() as found:
        batched(few[0])
    assert found


@pytest.mark.parametrize("count", [0, 1, 5])
def test_blocks_of_keys_and_of_nothing_are_rows_too(count):
    keys = jax.random.split(jax.random.key(0), max(count, 1))[:count]
    by_two = batch(lambda key: (key, jax.random.uniform(key, (2, 0)), jax.random.uniform(key)), batch_size=2)
    keys_, nothing, numbers = by_two(keys)
    np.testing.assert_array_equal(jax.random.key_data(keys_), jax.random.key_data(keys))
    assert nothing.shape == (count, 2, 0)
    np.testing.assert_array_equal(numbers, jax.jit(jax.vmap(jax.random.uniform))(keys))


@pytest.mark.parametrize("platform", ["cpu", "cuda", "rocm", "tpu"])
def test_a_batch_lowers_for_every_platform(platform):
    args = jax.ShapeDtypeStruct((1000, 2), np.float32), jax.ShapeDtypeStruct((3,), np.float32)
    for batched in (batch(neuron.backprop, (0, None)), batch(neuron.backprop, (0, None), batch_size=100)):
        exported = jax.export.export(jax.jit(batched), platforms=[platform])(*args)
        assert exported.platforms == (platform,)


@pytest.mark.parametrize("count", [0, 1, 700])
def test_packed_results_are_the_same_results(count):
    def fun(x, w):
        return retain_grads(neuron.forward)(x, w), (x > 0, jnp.float32(2)), x.astype(jnp.bfloat16), {}

    x = rows(count)
    got = batch(fun, (0, None), packed=True)(x, W)
    assert {type(leaf) for leaf in jax.tree.leaves(got)} == {np.ndarray}
    same(got, jax.jit(jax.vmap(fun, (0, None)))(x, W))


def test_packed_results_can_be_traced_and_streamed_and_pickled():
    x = rows(5)
    batched = pickle.loads(pickle.dumps(batch(neuron.sigmoid, packed=True)))
    np.testing.assert_array_equal(jax.jit(batched)(x), batched(x))
    # Float32, in another order.
    np.testing.assert_allclose(jax.grad(lambda x: batched(x).sum())(x), batched(x) * (1 - batched(x)), rtol=1e-5)
    np.testing.assert_array_equal(np.stack(list(batched.stream([(x,)] * 3))), np.stack([batched(x)] * 3))


def test_packed_results_for_an_out_or_a_mesh_are_an_error():
    with pytest.raises(InputError, match="packed results are views of one array, and there is an out"):
        batch(jnp.exp, packed=True)(np.zeros(3, np.float32), out=np.zeros(3, np.float32))
    with pytest.raises(InputError, match="packed results are one process's, for few rows, and there is a mesh"):
        batch(jnp.exp, packed=True, mesh=jax.make_mesh((1,), ("rows",)))
