"""What watch cannot name is said: by a note where the rest goes on, by an error where nothing is left."""

import types

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from jaxgrad import TagError, retain_grads, watch


def traced(fun, *args, within=None, **options):
    """The record of a watched function, its numbers not computed."""
    return jax.eval_shape(retain_grads(watch(fun, within=within), **options), *args)


@jax.custom_jvp
def by_jvp(x):
    inside = jnp.sin(x)
    return inside * 2


by_jvp.defjvp(lambda primals, tangents: (by_jvp(*primals), 2 * jnp.cos(primals[0]) * tangents[0]))


@jax.custom_vjp
def by_vjp(x):
    inside = jnp.sin(x)
    return inside * 2


by_vjp.defvjp(lambda x: (by_vjp(x), jnp.cos(x)), lambda saved, bar: (2 * saved * bar,))


@pytest.mark.parametrize("rule", [by_jvp, by_vjp], ids=["custom_jvp", "custom_vjp"])
def test_a_variable_in_a_custom_rules_body_has_a_note(rule, request):
    def fun(x):
        y = rule(x)
        return y * y

    record = traced(fun, 0.3)
    kind = request.node.callspec.id
    assert record.names == ("y",)
    assert dict(record.notes) == {
        f"{rule.__name__}.inside": f"not retained: it is inside a {kind} function, whose rule bypasses it. Tag the "
        "function's arguments or its result, or leave it out by `names`."
    }
    assert f"{rule.__name__}.inside  " in repr(retain_grads(watch(fun))(0.3))
    assert record.notes == traced(fun, 0.3, names="*").notes
    assert not traced(fun, 0.3, names="y").notes
    with pytest.raises(TagError, match=f"inside a {kind} function, whose rule bypasses it"):
        traced(fun, 0.3, names=["y", f"{rule.__name__}.inside"])


def test_a_variable_in_the_condition_of_a_while_loop_has_a_note():
    def fun(x):
        def going_on(carry):
            small = carry < 3
            return small

        last = lax.while_loop(going_on, lambda carry: carry + 1, lax.stop_gradient(x))
        return last * x

    record = traced(fun, 0.3)
    assert record.names == ("last",)
    assert record.notes["going_on.small"].startswith("not retained: it is in the condition of a while_loop")


def test_a_variable_that_is_in_no_program_has_a_note():
    def fun(x):
        def root(y):
            shifted = y - x
            return shifted

        y = lax.custom_root(root, 0.0, lambda f, y: y - f(y), lambda g, y: y / g(1.0))
        return y * y

    record = traced(fun, 0.3)
    assert "y" in record.names
    assert "root.shifted" in {name.partition("[")[0] for name in (*record.notes, *record.names)}
    assert all("root.shifted" not in name or record.grads[name] is not None for name in record.names)


@pytest.fixture
def other():
    module = types.ModuleType("other")
    exec("def f(x):\n    inner = x * 2\n    return inner * inner", module.__dict__)
    module.__file__ = "other.py"
    return module


def test_code_of_another_module_is_named_by_within_and_has_a_note_without(other):
    def fun(x):
        y = other.f(x)
        return y

    record = traced(fun, 0.3)
    assert record.names == ("y",)
    (note,) = record.notes.items()
    assert note[0] == "other.f"
    assert note[1].startswith("not watched: it is called at test_unwatched.py:")
    assert note[1].endswith("is code of another module; watch(fun, within=other) names its variables")
    for within in (other, other.f, [other]):
        watched = traced(fun, 0.3, within=within)
        assert watched.names == ("f.inner", "y")
        assert not watched.notes


def test_a_function_without_an_array_variable_is_refused(other):
    def nothing(x):
        return other.f(x) * 2

    with pytest.raises(TagError) as caught:
        traced(nothing, 0.3)
    assert str(caught.value).startswith(
        "no variable of the watched function `nothing` holds an array that depends on its arguments, so there is "
        "nothing to retain. Bind its intermediates to variables, `h = jnp.tanh(x)`, or give watch `within=` the "
        "module, class or function whose code has them. `other.f` is not watched: it is called at test_unwatched.py:"
    )


def test_a_name_that_would_be_ambiguous_is_refused():
    def fun(x):
        h = [x * 2]
        h = x * 3 + h[0]
        h = h * 4
        return h

    with pytest.raises(
        TagError, match=r'two intermediates would be named "h\[0\]": tag "h\[0\]" .* Rename one of them'
    ):
        traced(fun, 0.3)
