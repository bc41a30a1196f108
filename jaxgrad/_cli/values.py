"""What the command's arguments mean: numbers, and functions of modules."""

import difflib
import importlib
import os
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgrad._errors import InputError
from jaxgrad._types import PyTree


def numbers(option: str, text: str) -> jax.Array:
    try:
        return jnp.array([float(number) for number in text.split(",")], jnp.float32)
    except ValueError:
        raise InputError(f'{option} is "{text}"; expected numbers with commas between them, as 1,2.') from None


def function(text: str) -> Callable[..., PyTree]:
    """The function that "module:function" names, its module looked for in the working directory too."""
    module, colon, name = text.partition(":")
    if not (module and colon and name):
        raise InputError(f'the function is "{text}"; expected module:function, as mymodule:loss.')
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
    except Exception as error:  # whatever the module does when it is imported
        raise InputError(f'"{module}" cannot be imported: {type(error).__name__}: {error}') from error
    for part in name.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), n=1)
            raise InputError(f'"{module}" has no "{name}".' + (f' Did you mean "{near[0]}"?' if near else ""))
        found = getattr(found, part)
    if not callable(found):
        raise InputError(f'"{text}" is a {type(found).__name__}; expected a function.')
    return found


def argument(text: str) -> jax.Array:
    """An argument of a function: a number, or an array of those with commas between them."""
    array = numbers("-a", text)
    return array if "," in text else array[0]
