"""The command line: `python -m jaxgrad` and the command `jaxgrad`."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import jax

from jaxgrad import neuron
from jaxgrad._cli import argument, function, in_flags, numbers, parser, with_values
from jaxgrad._document import report
from jaxgrad._document.check import check
from jaxgrad._document.load import load
from jaxgrad._errors import InputError, JaxgradError
from jaxgrad._evaluate.evaluate import Summary, evaluate
from jaxgrad._evaluate.processes import check_agreement, check_no_others, shard_of
from jaxgrad._evaluate.task import plan_task
from jaxgrad._ledger.ledger import Ledger, ledger

AGREE, DIFFER, CANNOT, INTERRUPTED = 0, 1, 2, 130
DONE = 0
HEARTBEAT = 20  # seconds without a sign of one process after which JAX ends the others: within a minute


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status: 0 agree, 1 differ, 2 cannot, 130 interrupted."""
    arguments = parser().parse_args(with_values(sys.argv[1:] if argv is None else argv))
    return _status(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "evaluate":
        return _evaluate(arguments)
    if arguments.command == "explain":
        return _explain(arguments)
    if arguments.command == "notebook":
        return _notebook(arguments.name, arguments.output, only_list=arguments.list)
    return _report(arguments.table, as_json=arguments.json)


def _status(run: Callable[[], int]) -> int:
    """The exit status of `run`; what it raises is one line of error."""
    try:
        return run()
    except JaxgradError as error:
        return _cannot(str(error))
    except (RuntimeError, FloatingPointError) as error:
        # JAX could not start its device, ran out of memory, or was told (jax_debug_nans) to stop at a NaN.
        return _cannot(f"JAX cannot compute it: {error}")
    except MemoryError as error:
        return _cannot(f"there is not enough memory: {error}")
    except OSError as error:
        # What Python still wants to flush at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        reader_left = isinstance(error, BrokenPipeError)
        return CANNOT if reader_left else _cannot(f"the report cannot be written: {error.strerror}.")
    except KeyboardInterrupt:
        return INTERRUPTED


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
    index, processes = _join(arguments)
    status = _status(lambda: _evaluate_share(arguments, index, processes))
    if status != DONE and processes > 1:
        # Without JAX's farewell, which would wait for the others: so they learn that this one has failed, and end.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _join(arguments: argparse.Namespace) -> tuple[int, int]:
    """Joins the processes of a run; the number of this one, and how many there are."""
    if not (arguments.distributed or arguments.coordinator):
        if arguments.processes is not None or arguments.process is not None:
            raise InputError("--processes and --process are given without --coordinator; expected its host:port.")
        return 0, 1
    jax.distributed.initialize(
        arguments.coordinator,
        arguments.processes,
        arguments.process,
        initialization_timeout=60,
        heartbeat_timeout_seconds=HEARTBEAT,
        shutdown_timeout_seconds=30 * 24 * 3600,  # the first to be done waits for the last
    )
    return jax.process_index(), jax.process_count()


def _evaluate_share(arguments: argparse.Namespace, index: int, processes: int) -> int:
    out = shard_of(arguments.output, index, processes)
    # Nothing has its name before all processes are done: JAX's farewell waits for all, or ends them.
    farewell = jax.distributed.shutdown if processes > 1 else lambda: None
    try:
        task = plan_task(
            arguments.rows, arguments.w, columns=arguments.columns, keep=arguments.keep, dtype=arguments.dtype,
            batch_size=arguments.batch_size, on_bad_row=arguments.on_bad_row, header=arguments.header,
            share=(index, processes),
        )  # fmt: skip
        if processes > 1:
            check_agreement(task, arguments.output)
        check_no_others(arguments.output, processes)
        with _progress() as progress:
            summary = evaluate(
                task, out, resume=arguments.resume, overwrite=arguments.overwrite, progress=progress,
                before_publishing=farewell,
            )  # fmt: skip
    except InputError as error:
        raise InputError(in_flags(str(error))) from None
    except KeyboardInterrupt:
        _cannot(f"interrupted. {_left(out)}")
        return INTERRUPTED
    except OSError as error:
        return _cannot(f'"{error.filename or out}": {error.strerror or error}. {_left(out)}')
    _write(_what_was_done(summary))
    return DONE


def _left(out: Path) -> str:
    part = out.with_name(f"{out.name}.part")
    return f'What was done is in "{part}": give --resume to go on with it.' if os.path.exists(part) else ""


def _what_was_done(summary: Summary) -> str:
    if not summary.read:
        return f"{summary.out} was whole already; nothing was done."
    went_on = f", {summary.resumed} of them earlier" if summary.resumed else ""
    bad = f" Bad rows: {summary.bad}, the first: {summary.first_bad}." if summary.bad else ""
    wrote = f"wrote {summary.written} of {summary.columns} columns to {summary.out}"
    return f"Read {summary.read} rows{went_on}, {wrote}.{bad}"


@contextmanager
def _progress() -> Iterator[Callable[[int, int | None], None]]:
    """Shows the rows done, their speed and the time left, on a terminal."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda done, total: None
        return
    with tqdm(unit=" rows", unit_scale=True, disable=None, file=sys.stderr) as bar:

        def show(done: int, total: int | None) -> None:
            if bar.total is None and total is not None:
                bar.reset(total)
                bar.initial = done
            bar.update(done - bar.n)

        yield show


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
