"""Where NaN or infinity begins, forward and backward."""

import jax
import jax.numpy as jnp
import pytest

from jaxgrad import InputError, retain_grads, tag

NONFINITE = {
    "in a value": (lambda x: jnp.sum(tag(jnp.exp(tag(jnp.log(x - 1), "log")), "exp")), 0.5, "log"),
    "in the output alone": (lambda x: jnp.log(tag(x, "x")), 0.0, "output"),
    "backward, from the output back": (lambda x: tag(jnp.sqrt(tag(tag(x, "a") * 1, "b")), "c"), 0.0, "b.grad"),
    "in an argument": (lambda x: jnp.sqrt(x) + tag(2.0 * x, "t"), 0.0, "arg[0].grad"),
    "nowhere": (lambda x: jnp.sqrt(tag(x, "t")), 1.0, None),
}


@pytest.mark.parametrize("where", NONFINITE)
def test_the_record_says_where_nan_or_infinity_begins(where):
    fun, x, label = NONFINITE[where]
    assert retain_grads(fun)(x).first_nonfinite == label


def test_an_argument_that_is_a_pytree_is_named_with_its_path():
    assert retain_grads(lambda p: jnp.sqrt(p["w"]) + tag(p["w"], "t"))({"w": 0.0}).first_nonfinite == "arg[0]['w'].grad"


def test_a_traced_record_does_not_know_where():
    with pytest.raises(InputError, match="expected it outside of jit and vmap"):
        jax.jit(lambda x: (retain_grads(lambda x: tag(x, "t"))(x).first_nonfinite, x)[1])(1.0)
