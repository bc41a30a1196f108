"""The errors that jaxgrad raises by design: they show as `jaxgrad.TagError`, where users import them from."""


class JaxgradError(Exception):
    """The base of every error that jaxgrad raises by design.

    Its text says what was found, what was expected, why, and what to write instead.
    """

    __module__ = "jaxgrad"


class InputError(JaxgradError, ValueError):
    """An argument has a kind, shape or dtype that would give a wrong or misleading result."""

    __module__ = "jaxgrad"


class TableError(JaxgradError, ValueError):
    """A reference table is missing, malformed, or holds a number that is none."""

    __module__ = "jaxgrad"


class TagError(JaxgradError, ValueError):
    """A tag, or a name asked for, whose gradient would be wrong, misleading or missing."""

    __module__ = "jaxgrad"


class OutputError(JaxgradError, TypeError):
    """A function's output is not what the gradient asked for is defined on."""

    __module__ = "jaxgrad"


class DifferenceError(JaxgradError, AssertionError):
    """Two records that should agree do not; the text is the comparison."""

    __module__ = "jaxgrad"
