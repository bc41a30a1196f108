"""Following a program once more: whatever it is, the comparison stands without that, but no mistake is hidden."""

import warnings
from collections.abc import Callable
from typing import TypeVar

from jaxgrad._errors import JaxgradError

T = TypeVar("T")


def tried(find: Callable[[], T]) -> tuple[T | None, str]:
    """What is found, and ""; or None, and why.

    An operation that cannot be followed, and what the machine cannot do, are reasons. Any other exception is a mistake,
    of the program when it is called again or of ours: it is a RuntimeWarning too, which tests turn into an error.
    """
    try:
        return find(), ""
    except (JaxgradError, RuntimeError) as error:
        return None, str(error).partition("\n")[0]
    except Exception as error:
        why = f"{type(error).__name__}: {error}".partition("\n")[0]
        text = f"compare could not follow the program that it compares ({why}): the comparison stands without it."
        warnings.warn(text, RuntimeWarning, stacklevel=2)
        return None, why
