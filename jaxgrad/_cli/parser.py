"""The command line, parsed."""

import argparse
import re
from collections.abc import Sequence
from typing import Any

from jaxgrad import __version__
from jaxgrad._evaluate.formats.parquet import COMPRESSIONS
from jaxgrad._evaluate.sink import WRITES
from jaxgrad._evaluate.task import DTYPES, HEADER, ON_BAD_ROW

JSON = "JSON: the summary on standard output, progress and errors on standard error, a line each"
LEVELS = ("debug", "info", "warning")
TRACEBACK = "show where an error was raised too"
STATUSES = """\
Until it is whole, OUT is called OUT.part: nothing that is half written has its name.

exit status:
  0    done
  2    it cannot be done, and one line of error says why
  130  interrupted by Ctrl-C: --resume goes on where it was
  143  ended by SIGTERM: as by Ctrl-C
  -6 or 134  another process of the run died, and JAX ended this one
"""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jaxgrad",
        description="Checks the neuron's values and gradients, by every route, against a table of printed numbers.",
        epilog="Exit status: 0 all agree, 1 some differ, 2 it cannot be checked.",
    )
    parser.add_argument("--table", metavar="FILE", help="a table in TOML (default: the document's 25 numbers)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--version", action="version", version=f"jaxgrad {__version__}")
    parser.add_argument("--traceback", action="store_true", help=TRACEBACK)
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
    _add_merge(commands)
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
        epilog=STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "rows", metavar="ROWS", nargs="+",
        help="a .csv, .csv.gz, .npy, .parquet or .arrow file, a column for each input; or many: files, globs, folders, "
        "here or as URLs (s3://...)",
    )  # fmt: skip
    weights = "weights, the bias last: 0.5,-0.3,0.1, or a .txt, .csv, .npy, .parquet or .arrow file of them"
    parser.add_argument("-w", metavar="W", required=True, help=weights)
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        help="a .npy, .parquet, .arrow or .csv file; of many a folder, a file in it for each",
    )
    parser.add_argument(
        "--columns", metavar="NAMES", type=_list, help="the inputs' columns, as a,b or 0,1 (default: all)"
    )
    parser.add_argument("--keep", metavar="NAMES", type=_list, help="quantities to write, as f,df/dw* (default: all)")
    carry = "columns of ROWS, or keys of its path (year=2025/), that pass through to OUT, before the quantities"
    parser.add_argument("--carry", metavar="NAMES", type=_list, default=[], help=carry)
    row_number = "write each row's number too, from 1 in its file, in a column of this name"
    parser.add_argument("--row-number", metavar="NAME", help=row_number)
    parser.add_argument("--dtype", choices=DTYPES, help="compute in it (default: the rows', float32 for text)")
    ending = "of the outputs in a folder (default: that of their rows)"
    parser.add_argument("--format", choices=WRITES, help=ending)
    parser.add_argument("--batch-size", metavar="N", type=int, help="rows at a time")
    parser.add_argument("--limit", metavar="N", type=int, help="only the first N rows")
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
    share = "the I-th of N parts of the rows, I from 0: one after another, a job array; `merge` joins their outputs"
    several.add_argument("--part", metavar="I/N", type=_part, help=share)
    parser.add_argument("--resume", action="store_true", help="go on where an earlier run was broken off")
    parser.add_argument("--overwrite", action="store_true", help="write over OUT if it exists")
    parquet = parser.add_argument_group("of a .parquet file")
    compression = "of its columns (default: none, the fastest; with another --resume computes again from the first row)"
    parquet.add_argument("--compression", choices=COMPRESSIONS, default="none", help=compression)
    parquet.add_argument("--row-group-size", metavar="N", type=int, help="rows at most (default: as --batch-size)")
    saying = parser.add_argument_group("what it says")
    saying.add_argument("--dry-run", action="store_true", help="check all, say what would be done, write nothing")
    saying.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=JSON)
    saying.add_argument("--log", choices=LEVELS, help="log what is done to standard error")
    saying.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help=TRACEBACK)


def _add_merge(commands: Any) -> None:
    parser = commands.add_parser(
        "merge",
        help="join the outputs of the parts of an evaluation",
        description="Joins OUT-00000-of-00002 and so on, as evaluate --part writes them, to the bytes that one process "
        "would have written; they are kept.",
        epilog="Exit status: 0 done, 2 a shard is missing, damaged or of another task.",
    )
    parser.add_argument("output", metavar="OUT", help="the .npy, .parquet, .arrow or .csv file to write, or the folder")
    parser.add_argument("--overwrite", action="store_true", help="write over OUT if it exists")
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=JSON)
    parser.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help=TRACEBACK)


def _part(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text)
    if found is None or int(found[1]) >= int(found[2]):
        raise argparse.ArgumentTypeError(f"expected I/N with I from 0 to N-1, as 0/2 and 1/2, and not {text!r}")
    return int(found[1]), int(found[2])


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
