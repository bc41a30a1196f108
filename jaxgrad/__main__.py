"""The command line: `python -m jaxgrad` and the command `jaxgrad`."""

import argparse
import json
import os
import sys
from collections.abc import Sequence

import jax

from jaxgrad import __version__, report
from jaxgrad.check import check
from jaxgrad.errors import JaxgradError
from jaxgrad.reference import load

AGREE, DIFFER, CANNOT, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status: 0 agree, 1 differ, 2 cannot, 130 interrupted."""
    arguments = _parser().parse_args(argv)
    try:
        return _report(arguments.table, as_json=arguments.json)
    except JaxgradError as error:
        return _cannot(str(error))
    except (RuntimeError, FloatingPointError) as error:
        # JAX could not start its device, ran out of memory, or was told (jax_debug_nans) to stop at a NaN.
        return _cannot(f"JAX cannot compute it: {error}")
    except OSError as error:
        # What Python still wants to flush at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        reader_left = isinstance(error, BrokenPipeError)
        return CANNOT if reader_left else _cannot(f"the report cannot be written: {error.strerror}.")
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jaxgrad",
        description="Checks the neuron's values and gradients, by every route, against a table of printed numbers.",
        epilog="Exit status: 0 all agree, 1 some differ, 2 it cannot be checked.",
    )
    parser.add_argument("--table", metavar="FILE", help="a table in TOML (default: the document's 25 numbers)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--version", action="version", version=f"jaxgrad {__version__}")
    return parser


def _report(path: str | None, *, as_json: bool) -> int:
    table = load(path)
    with jax.enable_x64(table.dtype == "float64"):
        checked = check(table)
    _write(json.dumps(report.data(checked), indent=2, allow_nan=False) if as_json else report.text(checked))
    return AGREE if checked.ok else DIFFER


def _write(text: str) -> None:
    """Prints at once; characters that the terminal's encoding lacks are escaped."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def _cannot(why: str) -> int:
    print(f"jaxgrad: {' '.join(why.split())}", file=sys.stderr)
    return CANNOT


if __name__ == "__main__":
    sys.exit(main())
