"""The command line: `python -m jaxgrad` and the command `jaxgrad`."""

import jaxgrad._cli.startup  # noqa: F401, I001 - first: it answers for what goes wrong while the rest is imported
import argparse
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import jax

from jaxgrad import neuron
from jaxgrad._cli.evaluating import evaluated, merged, what_is_left
from jaxgrad._cli.flags import in_flags
from jaxgrad._cli.interrupts import Terminated, interruptible
from jaxgrad._cli.parser import parser, with_values
from jaxgrad._cli.startup import open_closed_streams
from jaxgrad._cli.values import argument, function, numbers
from jaxgrad._document import report
from jaxgrad._document.check import check
from jaxgrad._document.load import load
from jaxgrad._errors import InputError, JaxgradError
from jaxgrad._evaluate.processes.processes import join
from jaxgrad._ledger.ledger import Ledger, ledger
from jaxgrad._text import one_line

AGREE, DIFFER, CANNOT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
DONE = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status.

    0 agree or done, 1 differ, 2 cannot, 130 interrupted by Ctrl-C, 143 ended by SIGTERM. What goes wrong is one line
    on standard error.
    """
    open_closed_streams()
    with interruptible(for_good=argv is None):
        arguments = parser().parse_args(with_values(sys.argv[1:] if argv is None else argv))
        return _status(lambda: _run(arguments), arguments)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "evaluate":
        return _evaluate(arguments)
    if arguments.command == "merge":
        _write(merged(arguments))
        return DONE
    if arguments.command == "explain":
        return _explain(arguments)
    if arguments.command == "notebook":
        return _notebook(arguments.name, arguments.output, only_list=arguments.list)
    return _report(arguments.table, as_json=arguments.json)


def _status(run: Callable[[], int], arguments: argparse.Namespace) -> int:
    """The exit status of `run`; what it raises is one line of error."""
    try:
        return run()
    except KeyboardInterrupt as error:
        status, why = TERMINATED if isinstance(error, Terminated) else INTERRUPTED, str(error)
    except BrokenPipeError:  # the reader has left, and hears nothing
        status, why = CANNOT, ""
    except Exception as error:
        status, why = CANNOT, _reason(error)
        if arguments.command in ("evaluate", "merge"):
            why = in_flags(why)
        if arguments.traceback:
            with suppress(OSError):
                traceback.print_exc()
    _drop_what_cannot_be_written()
    if why:
        _say(json.dumps({"error": why, "status": status}) if arguments.json else why, as_json=arguments.json)
    return status


def _reason(error: Exception) -> str:
    match error:
        case JaxgradError():
            return str(error)
        case RuntimeError() | FloatingPointError():
            # JAX could not start its device, ran out of memory, or was told (jax_debug_nans) to stop at a NaN.
            return f"JAX cannot compute it: {error}"
        case AssertionError() if os.environ.get("JAX_PLATFORMS") and not str(error):  # all that JAX says of it
            platforms = os.environ["JAX_PLATFORMS"]
            return f'JAX cannot start a device: JAX_PLATFORMS is "{platforms}"; expected a platform that is here.'
        case MemoryError():
            return f"there is not enough memory: {error}"
        case OSError():
            return f"the report cannot be written: {error.strerror}."
    return f"unexpected {type(error).__name__}: {error}. Give --traceback to see where it comes from."


def _drop_what_cannot_be_written() -> None:
    """What Python still wants to flush at its end goes nowhere, where its place is full or gone."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        with suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explain(arguments: argparse.Namespace) -> int:
    heading, found, note = _explained(arguments)
    written = ""
    if arguments.output is not None:
        found.save(arguments.output)
        written = f"\n\nWrote {arguments.output}."
    _write(f"{heading}{found.text(style=_style())}{note}{written}")
    return DONE


def _explained(arguments: argparse.Namespace) -> tuple[str, Ledger, str]:
    """What stands above a ledger, the ledger, and what is to be said of it."""
    if arguments.function is None:
        if arguments.argument or arguments.x is None or arguments.w is None:
            raise InputError("expected -x and -w for the neuron, or module:function and an -a for each argument.")
        x, w = numbers("-x", arguments.x), numbers("-w", arguments.w)
        return f"{report.formulas(x.size)}\n\n", ledger(neuron.forward)(x, w), report.overflow(x, w)
    if arguments.x is not None or arguments.w is not None:
        raise InputError("-x and -w are the neuron's; expected an -a for each argument of the function.")
    fun, given = function(arguments.function), list(map(argument, arguments.argument))
    try:
        return "", ledger(fun)(*given), ""
    except JaxgradError:
        raise
    except Exception as error:  # whatever the function does
        raise InputError(f"{arguments.function} raised {type(error).__name__}: {error}") from error


def _style() -> str:
    """The curly d where the terminal has it."""
    try:
        "\N{PARTIAL DIFFERENTIAL}\N{MIDDLE DOT}\N{HORIZONTAL ELLIPSIS}".encode(
            getattr(sys.stdout, "encoding", None) or "utf-8"
        )
    except UnicodeEncodeError:
        return "plain"
    return "unicode"


def _notebook(name: str, path: str | None, *, only_list: bool) -> int:
    shipped = {file.name.removesuffix(".ipynb"): file for file in files("jaxgrad").joinpath("notebooks").iterdir()}
    if only_list:
        _write("\n".join(sorted(shipped)))
        return DONE
    if name not in shipped:
        raise InputError(f"there is no notebook {name!r}. There are: {', '.join(sorted(shipped))}.")
    text = shipped[name].read_text(encoding="utf-8")
    if path is None:
        _write(text.rstrip("\n"))
        return DONE
    try:
        with Path(path).open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{path} is there already; expected a new file.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from error
    _write(f"Wrote {path}. Open it with: jupyter lab {path}")
    return DONE


def _evaluate(arguments: argparse.Namespace) -> int:
    started = (arguments.coordinator, arguments.processes, arguments.process, arguments.distributed)
    if arguments.part is not None:
        if any(value is not None and value is not False for value in started):
            raise InputError("`part` needs no other process, and `coordinator` or its like is given; expected one way.")
        return _evaluate_share(arguments, *arguments.part)
    index, processes = join(*started)
    if processes > 1:
        _say(
            f"this is process {index} of {processes}. When another one dies, JAX ends this one too, in its own words, "
            "and nothing that is half written has its name: give --resume to all of them."
        )
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))  # JAX has put its own in its place
    status = _status(lambda: _evaluate_share(arguments, index, processes), arguments)
    if status != DONE and processes > 1:
        # Without JAX's farewell, which would wait for the others: so they learn that this one has failed, and end.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, AttributeError):
                stream.flush()
        os._exit(status)
    return status


def _say_who_died(process: int) -> None:
    _say(
        f"process {process} has ended before it was done, so that JAX will end this one too, in its own words: see "
        "what that process said, and give --resume to all of them."
    )


def _evaluate_share(arguments: argparse.Namespace, index: int, processes: int) -> int:
    if arguments.log is not None:
        logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s")
        logging.getLogger("jaxgrad").setLevel(arguments.log.upper())
    try:
        _write(evaluated(arguments, index, processes, sys.stderr, _say_who_died))
    except (OSError, KeyboardInterrupt) as error:
        left = what_is_left(arguments.output, index, processes)
        if isinstance(error, KeyboardInterrupt):
            raise type(error)(f"interrupted. {left}") from None
        if isinstance(error, BrokenPipeError):
            raise
        raise InputError(f'"{error.filename or arguments.output}": {error.strerror or error}. {left}') from error
    return DONE


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


def _say(text: str, *, as_json: bool = False) -> None:
    """One line on standard error, whatever is in the text; nothing where there is no such stream."""
    line = text if as_json else f"jaxgrad: {one_line(text)}"
    with suppress(OSError, AttributeError, ValueError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
