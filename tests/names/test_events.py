"""A watched call leaves the interpreter as it was: tracers, debuggers and coverage, after errors and in threads too."""

import sys
import threading

import jax
import jax.numpy as jnp
import pytest

from jaxgrad import retain_grads, watch

BY_MONITORING = sys.version_info >= (3, 12)


def helper(x):
    u = jnp.sin(x)
    return u * u


def fun(x):
    h = helper(x)
    return h + helper(2 * x)


NAMES = ("helper.u[0]", "h", "helper.u[1]")


def names_of(fun):
    return jax.eval_shape(retain_grads(watch(fun)), 0.3).names


def fails(x):
    y = x * 2
    raise ZeroDivisionError(y)


@pytest.fixture
def tracer():
    """A tracer that a debugger or coverage would have: the functions of this file that it sees."""
    seen = []

    def call(frame, event, arg):
        if frame.f_code.co_filename == __file__:
            seen.append((frame.f_code.co_name, event))
            return call
        return None

    before = sys.gettrace()
    sys.settrace(call)
    yield call, seen
    sys.settrace(before)


def test_the_tracer_that_was_there_is_there_after_and_after_an_error(tracer):
    mine, seen = tracer
    assert names_of(fun) == NAMES
    after = sys.gettrace()
    with pytest.raises(ZeroDivisionError):
        watch(fails)(0.5)
    assert (after, sys.gettrace()) == (mine, mine)
    assert (("helper", "line") in seen) == BY_MONITORING  # before it is the one tracer of the thread that watches


def test_coverage_counts_on_after_a_watched_call():
    coverage = pytest.importorskip("coverage")
    counted = coverage.Coverage(data_file=None, config_file=False, include=[__file__])
    before = sys.gettrace()
    counted.start()
    try:
        lines = watches_and_goes_on()
    finally:
        counted.stop()
        sys.settrace(before)
    found = set(counted.get_data().lines(__file__))
    assert set(lines) <= found
    assert ({helper.__code__.co_firstlineno + 1} <= found) == BY_MONITORING


def watches_and_goes_on():
    """The lines that run after a watched call, here and in a function that is called then."""
    assert names_of(fun) == NAMES
    line = sys._getframe().f_lineno
    return line, line + 1, goes_on()


def goes_on():
    return sys._getframe().f_lineno


@pytest.mark.skipif(not BY_MONITORING, reason="sys.monitoring is there from Python 3.12 on")
class TestMonitoring:
    @pytest.fixture
    def taken(self):
        """Takes tool ids for the test."""
        ids = []

        def take(i):
            sys.monitoring.use_tool_id(i, "test")
            ids.append(i)

        yield take
        for i in ids:
            sys.monitoring.set_events(i, 0)
            sys.monitoring.register_callback(i, sys.monitoring.events.PY_START, None)
            sys.monitoring.free_tool_id(i)

    def test_the_tool_ids_are_as_before(self):
        before = [sys.monitoring.get_tool(i) for i in range(6)]
        during = []

        def looks(x):
            y = x * 2
            during.append([sys.monitoring.get_tool(i) for i in range(6)])
            return y

        assert names_of(looks) == ("y",)
        with pytest.raises(ZeroDivisionError):
            watch(fails)(0.5)
        assert [sys.monitoring.get_tool(i) for i in range(6)] == before
        assert sum(a != b for a, b in zip(before, during[0], strict=True)) == 1
        assert during[0][sys.monitoring.DEBUGGER_ID] == before[sys.monitoring.DEBUGGER_ID]
        assert during[0][sys.monitoring.COVERAGE_ID] == before[sys.monitoring.COVERAGE_ID]

    @pytest.mark.parametrize("ids", [(3,), (3, 4)])
    def test_an_id_that_is_taken_is_left_alone(self, taken, ids):
        for i in ids:
            taken(i)
        assert names_of(fun) == NAMES
        assert [sys.monitoring.get_tool(i) for i in ids] == ["test"] * len(ids)

    def test_the_next_tool_with_the_id_is_told_of_all_code(self, taken):
        names_of(fun)
        names_of(fun)
        taken(3)
        events, started = sys.monitoring.events, set()
        sys.monitoring.register_callback(3, events.PY_START, lambda code, _: started.add(code.co_name))
        sys.monitoring.set_events(3, events.PY_START)
        helper(jnp.ones(3))
        jax.eval_shape(lambda x: x * 2, 0.3)
        sys.monitoring.set_events(3, 0)
        assert {"helper", "eval_shape"} <= started

    def test_a_library_can_be_watched_while_another_thread_is_deaf_to_it(self):
        assert names_of(fun) == NAMES  # which makes the monitor deaf to JAX

        def relu(x):
            y = jax.nn.silu(x)
            return y

        both = {}

        def outer(x):
            watched = watch(relu, within=jax.nn.silu)
            thread = threading.Thread(
                target=lambda: both.update(names=jax.eval_shape(retain_grads(watched), 0.3).names)
            )
            thread.start()
            thread.join()
            return watch(relu)(x)

        names_of(outer)
        assert "y" in both["names"]


def test_threads_that_watch_at_once_name_their_own():
    found = {}
    barrier = threading.Barrier(3)

    def work(i):
        def mine(x):
            barrier.wait(timeout=60)
            a = x * i
            for _ in range(i):
                a = helper(a)
            return a

        found[i] = names_of(mine)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(1, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {i: sum(name.startswith("a[") for name in names) for i, names in found.items()} == {1: 2, 2: 3, 3: 4}


def test_a_thread_that_does_not_watch_is_not_seen():
    def starts_one(x):
        done = []
        thread = threading.Thread(target=lambda: done.append(jax.eval_shape(helper, 0.3)))
        thread.start()
        thread.join()
        y = x * 2
        return y

    assert names_of(starts_one) == ("y",)


def test_one_watched_function_calls_another():
    def inner(x):
        a = x * 3
        return a

    def outer(x):
        b = watch(inner)(x)
        c = b * 2
        return c

    assert names_of(outer) == ("a", "b", "c")
