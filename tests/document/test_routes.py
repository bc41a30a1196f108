"""Every route, called in every way, against the document's 25 numbers, the oracle, and the other routes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import oracle
from jaxgrad import compare, neuron, reference
from jaxgrad._document import routes


def batched(route):
    """Runs the route on a batch in which the row stands second, and takes the row out again."""

    def one_row(x, w):
        batch = jax.vmap(route, in_axes=(0, None))(jnp.stack([-x, x, 2 * x]), w)
        return jax.tree.map(lambda a: a[1], batch)

    return one_row


WAYS = {
    "eager": lambda route: route,
    "jit": jax.jit,
    "vmap": batched,
    "jit(vmap)": lambda route: jax.jit(batched(route)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("route", routes.ROUTES)
def test_the_documents_25_numbers_are_0_ulp_away(route, way):
    table = reference.load()
    comparison = compare(WAYS[way](routes.ROUTES[route])(table.x, table.w), table)
    assert len(comparison.rows) == 25
    assert [row.number.place for row in comparison.rows if not row.ok or row.ulp != 0] == []


def test_backprop_is_the_vjp_route_without_the_local_derivatives():
    table = reference.load()
    vjp, backprop = (jax.jit(fun)(table.x, table.w) for fun in (routes.ROUTES["vjp"], neuron.backprop))
    assert backprop.aux is None
    compare(backprop, vjp, ulp=0).raise_if_different()


@pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.deep), 7])
def test_routes_agree_on_random_neurons_with_the_oracle_and_one_another(n, dtype):
    x, w = oracle.random_neurons(n, dtype, rows=32)
    records = jax.jit(jax.vmap(lambda x, w: {name: route(x, w) for name, route in routes.ROUTES.items()}))(x, w)
    error = oracle.rounding(x, w, dtype)
    hand = oracle.arrays(records["hand"])
    for route, record in records.items():
        assert compare(record, records["hand"]).ok, route
        arrays = oracle.arrays(record)
        oracle.assert_close(arrays, x, w, dtype)
        for name, values in arrays.items():
            off = abs(np.asarray(values, np.float64) - np.asarray(hand[name], np.float64))
            assert np.all(off <= 2 * error[name]), (route, name)  # each may be off by as much, either way


def test_run_and_run_batch_run_every_route():
    table = reference.load()
    each, batch = routes.run(table.x, table.w), routes.run_batch(table.x[None], table.w)
    assert list(each) == list(routes.ROUTES)
    assert set(batch) == set(routes.ROUTES)
    for name, record in batch.items():
        for one, many in zip(jax.tree.leaves(each[name]), jax.tree.leaves(record), strict=True):
            np.testing.assert_array_equal(many[0], one)
