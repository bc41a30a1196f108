"""Work done ahead: in another thread where that pays, in its order, with its user's settings, and no thread left."""

import threading

import jax
import jax.numpy as jnp
import pytest

from jaxgrad._evaluate import threads


@pytest.fixture(params=[0, 60], ids=["elsewhere", "here"])
def elsewhere(request, monkeypatch):
    """Whether items are worth a thread, all but the first, which is made before that is known."""
    monkeypatch.setattr(threads, "WORTH", request.param)
    return request.param == 0


def test_items_are_made_ahead_with_their_users_settings_and_errors_come_after_them(elsewhere):
    def items():
        for i in range(4):
            yield i, threading.current_thread(), jnp.arange(3.0).dtype, jax.config.jax_default_matmul_precision
        raise OSError("the disk is gone")

    got = []
    with (
        jax.default_matmul_precision("float32"),
        jax.enable_x64(True),
        pytest.raises(OSError, match="the disk is gone"),
    ):
        got.extend(threads.ahead(items()))
    assert [number for number, *_ in got] == [0, 1, 2, 3]
    assert sum(thread is not threading.current_thread() for _, thread, *_ in got) == (3 if elsewhere else 0)
    assert {settings for *_, _, settings in got} == {"float32"}
    assert {dtype.name for _, _, dtype, _ in got} == {"float64"}


@pytest.mark.usefixtures("elsewhere")
def test_no_more_than_one_item_is_made_ahead_and_no_thread_is_left():
    before, made = threading.active_count(), []
    items = threads.ahead(made.append(i) or i for i in range(100))
    assert next(items) == 0
    items.close()
    assert len(made) <= 2
    assert threading.active_count() == before
