"""The command line, parsed."""

import argparse
import difflib
import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxgrad import __version__
from jaxgrad._errors import InputError
from jaxgrad._evaluate.task import DTYPES, HEADER, ON_BAD_ROW
from jaxgrad._types import PyTree


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jaxgrad",
        description="Checks the neuron's values and gradients, by every route, against a table of printed numbers.",
        epilog="Exit status: 0 all agree, 1 some differ, 2 it cannot be checked.",
    )
    parser.add_argument("--table", metavar="FILE", help="a table in TOML (default: the document's 25 numbers)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--version", action="version", version=f"jaxgrad {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    explain = commands.add_parser(
        "explain",
        help="write out the chain rule of the neuron, or of any function, at one input",
        description="Writes out a chain rule at one input: values, gradients and local derivatives. Of the neuron: "
        "-x 1,2 -w 0.5,-0.3,0.1. Of any other function: module:function -a 1.0 -a 2.0.",
        epilog="Exit status: 0 done, 2 it cannot be done.",
    )
    explain.add_argument("function", metavar="MODULE:FUNCTION", nargs="?", help="a function of a module to import")
    explain.add_argument(
        "-a", "--argument", metavar="NUMBERS", action="append", default=[], help="an argument: 1.0, or 1,2 for an array"
    )
    explain.add_argument("-x", metavar="NUMBERS", help="the neuron's inputs, as 1,2")
    explain.add_argument("-w", metavar="NUMBERS", help="its weights, the bias last, as 0.5,-0.3,0.1")
    explain.add_argument("-o", "--output", metavar="FILE", help="draw it too: .svg .png .dot .mmd .html or .json")
    _add_evaluate(commands)
    notebook = commands.add_parser(
        "notebook",
        help="hand out a notebook: the document in JAX, cell by cell",
        description="Hands out a notebook that ships with jaxgrad; chain_rule is the document, cell by cell beside "
        "the original's PyTorch.",
        epilog="Exit status: 0 done, 2 it cannot be written.",
    )
    notebook.add_argument("name", metavar="NAME", nargs="?", default="chain_rule", help="which (default: chain_rule)")
    notebook.add_argument("-o", "--output", metavar="FILE", help="a new .ipynb file (default: print it, as JSON)")
    notebook.add_argument("--list", action="store_true", help="list those that there are")
    check_ = commands.add_parser(
        "check",
        help="check a table of your own: the same as --table FILE",
        description="Checks the neuron's values and gradients, by every route, against a table of your own.",
        epilog="Exit status: 0 all agree, 1 some differ, 2 it cannot be checked.",
    )
    check_.add_argument("table", metavar="TABLE", help="a table in TOML, as the package's reference.toml")
    # Without a default of its own, so that the option may stand before the command too.
    check_.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print the report as JSON")
    return parser


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="compute all values and gradients for each row of a file",
        description="Computes the neuron's values and gradients for each row of a file: z, k, h, f, df/dz, df/dk, "
        "df/dh, df/dw0, ..., df/dx0, ..., a column each.",
        epilog="Until it is whole, OUT is called OUT.part. Exit status: 0 done, 2 it cannot be done, 130 interrupted.",
    )
    parser.add_argument("rows", metavar="ROWS", help="a .csv, .npy, .parquet or .arrow file, a column for each input")
    parser.add_argument("-w", metavar="W", required=True, help="weights, the bias last: 0.5,-0.3,0.1 or a file of them")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="a .npy, .parquet, .arrow or .csv file")
    parser.add_argument(
        "--columns", metavar="NAMES", type=_list, help="the inputs' columns, as a,b or 0,1 (default: all)"
    )
    parser.add_argument("--keep", metavar="NAMES", type=_list, help="quantities to write, as f,df/dw* (default: all)")
    parser.add_argument("--dtype", choices=DTYPES, help="compute in it (default: the rows', float32 for text)")
    parser.add_argument("--batch-size", metavar="N", type=int, help="rows at a time")
    bad_row = "what to do with a row where a number is missing, infinite, NaN or none (default: error)"
    parser.add_argument("--on-bad-row", choices=ON_BAD_ROW, default="error", help=bad_row)
    header = "whether the first line of a .csv file has the columns' names (default: found out, an error if unsure)"
    parser.add_argument("--header", choices=HEADER, default="auto", help=header)
    several = parser.add_argument_group("over several processes", "each writes OUT-00000-of-00002 and so on, its rows")
    several.add_argument(
        "--distributed", action="store_true", help="as Slurm, MPI, Kubernetes or a TPU pod starts them"
    )
    several.add_argument("--coordinator", metavar="ADDRESS", help="host:port of the first process, where nothing does")
    several.add_argument("--processes", metavar="N", type=int, help="how many there are")
    several.add_argument("--process", metavar="I", type=int, help="which of them this is, from 0")
    parser.add_argument("--resume", action="store_true", help="go on where an earlier run was broken off")
    parser.add_argument("--overwrite", action="store_true", help="write over OUT if it exists")


def in_flags(text: str) -> str:
    """An error's text with the options it names written as flags: `overwrite=True` as --overwrite."""
    return re.sub(r'`(\w+)(?:=(?:True|"(\w+)"))?`', lambda m: _flag(m[1], m[2]), text).replace('`"nan"`', "nan")


def _flag(option: str, value: str | None) -> str:
    return f"--{option.replace('_', '-')}" + (f" {value}" if value else "")


def _list(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def with_values(argv: Sequence[str]) -> list[str]:
    """The arguments with `-w -1,2` as `-w-1,2`: argparse would take the numbers for an option."""
    joined: list[str] = []
    for argument in argv:
        if (
            joined
            and joined[-1] in ("-x", "-w", "-a", "--argument")
            and argument[:1] == "-"
            and argument[1:2] in set("0123456789.in")
        ):
            joined[-1] += f"={argument}" if joined[-1].startswith("--") else argument
        else:
            joined.append(argument)
    return joined


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
