"""evaluate: the neuron's values and gradients for each row of a file, into a file, however long it is.

One thread reads the next rows, the processor's cores compute these, and one thread writes the last ones.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType

from jaxgrad import host, neuron, sinks, sources
from jaxgrad.batch import Batched, batch
from jaxgrad.errors import InputError
from jaxgrad.part import Part, is_whole

BLOCK = 64 << 20  # bytes of rows and results that are read, computed and written at a time
ON_BAD_ROW = ("error", "skip", "nan")
MOST = 1 << 31  # rows at a time, whatever is asked for
_Columns = dict[str, np.ndarray[Any, Any]]
DTYPES = ("float16", "float32", "float64")


@dataclass(frozen=True)
class Task:
    """What to evaluate: everything that the output depends on.

    Attributes:
      source: the rows.
      positions: of the source's columns that are the inputs.
      weights: as many and one more, the bias last.
      keep: names of the quantities, in their order in the output.
      dtype: what is computed in.
      block: rows at a time.
      on_bad_row: "error", "skip" or "nan": what to do with a row that has a missing, infinite or NaN input or one
        that is no number.
      start, stop: the rows of the source that are this process's; None where that is to its end.
    """

    source: sources.Source
    positions: tuple[int, ...]
    weights: np.ndarray[Any, Any]
    keep: tuple[str, ...]
    dtype: np.dtype[Any]
    block: int
    on_bad_row: str
    start: int
    stop: int | None

    def provenance(self) -> dict[str, Any]:
        """What has to be the same for a run to go on with another's part."""
        stat = self.source.path.stat()
        return {
            "rows": str(self.source.path.resolve()),
            "size of rows": stat.st_size,
            "time of rows": stat.st_mtime_ns,
            "columns": [self.source.names[position] for position in self.positions],
            "weights": self.weights.astype(float).tolist(),
            "keep": list(self.keep),
            "dtype": self.dtype.name,
            "batch size": self.block,
            "on bad row": self.on_bad_row,
            "part of the rows": [self.start, self.stop],
            "JAX": jax.__version__,
            "device": jax.devices()[0].device_kind,
        }


@dataclass(frozen=True)
class Summary:
    """What was done: rows read and written, how many of them were bad, and what was wrong with the first of them."""

    out: Path
    read: int
    written: int
    columns: int
    bad: int
    first_bad: str | None
    resumed: int  # rows that an earlier run had read


def plan(
    rows: str | Path,
    weights: str,
    *,
    columns: Sequence[str] | None = None,
    keep: Sequence[str] | None = None,
    dtype: str | None = None,
    batch_size: int | None = None,
    on_bad_row: str = "error",
    share: tuple[int, int] = (0, 1),
) -> Task:
    """Checks what is asked for, and finds what was left open.

    Args:
      rows: a file of rows.
      weights: numbers with commas between them, or a file of them.
      columns: names of the inputs' columns, or their numbers from 0; all columns if None.
      keep: names or globs of `neuron.quantities`; all if None.
      dtype: "float16", "float32" or "float64"; if None the rows', float32 where they are text or whole numbers.
      batch_size: rows that are read, computed and written at a time.
      on_bad_row: "error", "skip" or "nan".
      share: (i, n) for the i-th part of n of the rows.

    Raises:
      InputError: a file cannot be read, there are not as many weights as columns and one more, a column or
        quantity is not there.
    """
    source = sources.open_source(rows)
    positions = _positions(source, columns)
    found = _dtype(source, positions, dtype)
    w = _weights(weights, found, [source.names[position] for position in positions])
    kept = _kept(_names(w), keep)
    if batch_size is not None and batch_size < 1:
        raise InputError(f"--batch-size is {batch_size}; expected a positive number of rows.")
    bytes_a_row = found.itemsize * (len(positions) + len(kept))
    block = min(batch_size or max(1024, 1 << ((BLOCK // bytes_a_row).bit_length() - 1)), MOST)
    start, stop = _share(source, positions, block, share)
    return Task(source, positions, w, kept, found, block, on_bad_row, start, stop)


def evaluate(
    task: Task,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
    before_publishing: Callable[[], None] = lambda: None,
) -> Summary:
    """Writes the quantities of each row to `out`, which appears under its name when it is whole.

    Until then it is `OUT.part`, beside a log of the blocks that are whole: interrupted, killed or out of space, it is
    left there, and `resume` goes on with it, to the same bytes.

    Args:
      task: what to evaluate.
      out: a .npy, .parquet, .arrow or .csv file; its columns are named as the quantities.
      resume: go on with a part; begin where there is none.
      overwrite: write over an output or a part of another run.
      progress: is called with the rows done and their number, if that is known.
      before_publishing: is called when all is written and before it has its name.

    Raises:
      InputError: the output exists, or is the input; a row is bad and `on_bad_row` is "error"; the file of rows
        changed while it was read.
    """
    out = Path(out)
    if out.suffix.lower() not in sinks.WRITES:
        raise InputError(f'the output is "{out}"; expected a file that ends in {", ".join(sinks.WRITES)}.')
    if out.exists() and out.samefile(task.source.path):
        raise InputError(f'"{out}" holds the rows; expected another file for the output.')
    if resume and not overwrite and _may_be_the_result(task, out) and is_whole(out):
        return Summary(out, 0, 0, len(task.keep), 0, None, 0)
    part = Part(out, task.provenance(), resume=resume, overwrite=overwrite)
    try:
        with jax.enable_x64(task.dtype == np.float64):
            summary = _run(task, out, part, progress)
        before_publishing()
        part.publish()
    except InputError:
        part.leave() if part.done else part.remove()
        raise
    except BaseException:
        part.leave()
        raise
    return summary


def _may_be_the_result(task: Task, out: Path) -> bool:
    """Whether a file has the columns that are asked for, and as many rows where that is known."""
    try:
        found = sources.open_source(out)
    except InputError:
        return False
    if found.names != task.keep:
        return False
    if task.stop is None or found.count is None or task.on_bad_row == "skip":
        return True
    return found.count == task.stop - task.start


def share_of(out: str | Path, index: int, processes: int) -> Path:
    """The file of a process's own part of the output: out.npy is out-00000-of-00002.npy for the first of two."""
    out = Path(out)
    return out if processes == 1 else out.with_name(f"{out.stem}-{index:05}-of-{processes:05}{out.suffix}")


def _run(task: Task, out: Path, part: Part, progress: Callable[[int, int | None], None]) -> Summary:
    batched = _batched(task.keep)
    written = [block.written for block in part.done if block.written]
    sink = sinks.open_sink(out.suffix, part.file, task.keep, task.dtype, written)
    earlier = sum(block.read for block in part.done)
    total = None if task.stop is None else task.stop - task.start
    read = earlier
    progress(read, total)
    results: list[Any] = [None, None]  # one block is computed while another is written, in memory that is used again
    writing: Future[None] | None = None
    with ThreadPoolExecutor(1) as writer:
        for i, block in enumerate(host.ahead(_checked(task, task.start + earlier))):
            # The first block is either full or all there is.
            x = block.padded(task.block) if read else block.x
            results[i % 2] = batched(x, task.weights, out=results[i % 2])
            columns = _columns(task, block, results[i % 2])
            if writing is not None:
                writing.result()
            writing = writer.submit(_write, sink, part, columns, block)
            read += len(block.x)
            progress(read, total)
        if writing is not None:
            writing.result()
    if not read:
        raise InputError(f'"{task.source.path}" has no rows; expected at least one.')
    if total is not None and read != total:
        raise InputError(f'"{task.source.path}" had {total} rows, and {read} could be read; it changed meanwhile.')
    sink.close()
    written_rows = sum(block.written for block in part.done)
    bad = sum(block.bad for block in part.done)
    first_bad = next((block.first_bad for block in part.done if block.bad), None)
    return Summary(out, read, written_rows, len(task.keep), bad, first_bad, earlier)


@cache
def _batched(keep: tuple[str, ...]) -> Batched:
    """What computes the columns; the same for the same ones, so that it is compiled once."""

    def columns(x: jax.Array, w: jax.Array) -> dict[str, jax.Array]:
        found = neuron.quantities(neuron.backprop(x, w))
        return {name: found[name] for name in keep}

    # One program for a block, that writes over the one before the last: a CPU's other cores read and write meanwhile.
    device = jax.make_mesh((1,), ("rows",), (AxisType.Auto,), devices=jax.local_devices()[:1])
    return batch(columns, in_axes=(0, None), mesh=device)


@dataclass(frozen=True)
class _Block:
    """Rows, checked: those that are bad are in it, and named."""

    x: np.ndarray[Any, Any]
    bad: np.ndarray[Any, Any]
    first_bad: str | None

    def padded(self, size: int) -> np.ndarray[Any, Any]:
        """As many rows as every block has: another number would be another program."""
        return self.x if len(self.x) == size else np.resize(self.x, (size, self.x.shape[1]))


def _checked(task: Task, start: int) -> Iterator[_Block]:
    """The rows from `start` on, as arrays of the task's dtype."""
    for chunk in sources.blocks(task.source, task.positions, start, task.block):
        columns = chunk.columns if task.stop is None else [column[: task.stop - start] for column in chunk.columns]
        x = np.empty((len(columns[0]), len(columns)), task.dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # what does not fit is infinite, and bad
            for i, column in enumerate(columns):
                x[:, i] = column
        finite = np.isfinite(x)
        bad = np.flatnonzero(~finite.all(axis=1)) if not finite.all() else np.empty(0, int)
        first_bad = None
        if len(bad):
            first_bad = _why(task, chunk, start, int(bad[0]), int(np.flatnonzero(~finite[bad[0]])[0]))
            if task.on_bad_row == "error":
                raise InputError(
                    f"{first_bad}; expected finite numbers. Give --on-bad-row skip to leave such rows out, or nan to "
                    "have NaN in them."
                )
            x[bad] = 0
        yield _Block(x, bad, first_bad)
        start += len(x)
        if start == task.stop:
            return


def _why(task: Task, chunk: sources.Chunk, start: int, row: int, column: int) -> str:
    value = chunk.columns[column][row]
    what = f"is {value}, too large for {task.dtype.name}" if np.isfinite(value) else f"is {value}"
    name = task.source.names[task.positions[column]]
    return f'"{task.source.path}", row {start + row + 1}, column {name}: it {chunk.why.get((row, column), what)}'


def _columns(task: Task, block: _Block, results: dict[str, jax.Array]) -> _Columns:
    """The columns of a block's rows: views, where that can be, that end with what holds them."""
    columns = {name: _view(results[name])[: len(block.x)] for name in task.keep}
    if task.on_bad_row == "skip" and len(block.bad):
        return {name: np.delete(column, block.bad) for name, column in columns.items()}
    if len(block.bad):
        columns = {name: column.copy() for name, column in columns.items()}
        for column in columns.values():
            column[block.bad] = np.nan
    return columns


def _view(array: jax.Array) -> np.ndarray[Any, Any]:
    on_cpu = {device.platform for device in array.devices()} == {"cpu"}
    return np.from_dlpack(array) if on_cpu else np.asarray(array)  # type: ignore[arg-type]


def _write(sink: sinks.Sink, part: Part, columns: _Columns, block: _Block) -> None:
    rows = len(next(iter(columns.values())))
    if rows:
        sink.write(columns)
    part.note(len(block.x), rows, len(block.bad), block.first_bad)


def _positions(source: sources.Source, columns: Sequence[str] | None) -> tuple[int, ...]:
    if columns is None:
        return tuple(range(len(source.names)))
    return tuple(_position(source, column) for column in columns)


def _position(source: sources.Source, column: str) -> int:
    if column in source.names:
        return source.names.index(column)
    if column.isdecimal() and int(column) < len(source.names):
        return int(column)
    raise InputError(
        f'"{source.path}" has no column "{column}"; expected one of {", ".join(source.names)}, or a number from 0 to '
        f"{len(source.names) - 1}."
    )


def _dtype(source: sources.Source, positions: Sequence[int], dtype: str | None) -> np.dtype[Any]:
    if dtype is not None:
        return np.dtype(dtype)
    found = {kind for position in positions if (kind := source.dtypes[position]) is not None and kind.kind == "f"}
    widest = np.result_type(*found) if found else np.dtype(np.float32)
    return widest if widest.name in DTYPES else np.dtype(np.float64)


def _weights(text: str, dtype: np.dtype[Any], inputs: Sequence[str]) -> np.ndarray[Any, Any]:
    path = Path(text)
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        if not path.is_file():
            raise InputError(
                f'-w is "{text}"; expected numbers with commas between them, as 0.5,-0.3,0.1, or a file of them.'
            ) from None
        numbers = _weights_of_file(path)
    if len(numbers) != len(inputs) + 1:
        raise InputError(
            f"there are {len(numbers)} weights and {len(inputs)} columns of inputs ({', '.join(inputs)}); expected "
            f"{len(inputs) + 1} weights, one for each column and the bias last. Choose columns by --columns."
        )
    with np.errstate(over="ignore"):
        w = np.array(numbers, dtype)
    if not np.isfinite(w).all():
        raise InputError(
            f"weight {int(np.flatnonzero(~np.isfinite(w))[0])} is not a finite {dtype.name}; expected one."
        )
    return w


def _weights_of_file(path: Path) -> list[float]:
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False).astype(float, casting="same_kind").ravel().tolist()  # type: ignore[no-any-return]
        return [float(number) for number in path.read_text(encoding="utf-8-sig").replace(",", " ").split()]
    except (ValueError, TypeError, EOFError) as error:
        raise InputError(f'the weights in "{path}" cannot be read: {error}') from None


def _names(w: np.ndarray[Any, Any]) -> list[str]:
    """The quantities, in the document's order."""
    names: list[str] = []  # as they are made: JAX would sort them
    with jax.enable_x64(w.dtype == np.float64):
        jax.eval_shape(lambda x, w: names.extend(neuron.quantities(neuron.backprop(x, w))), w[:-1], w)
    return names


def _kept(names: Sequence[str], keep: Sequence[str] | None) -> tuple[str, ...]:
    if keep is None:
        return tuple(names)
    for pattern in keep:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(f'there is no quantity "{pattern}"; expected names or globs of {", ".join(names)}.')
    return tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in keep))


def _share(
    source: sources.Source, positions: Sequence[int], block: int, share: tuple[int, int]
) -> tuple[int, int | None]:
    """First and last row of a process."""
    index, processes = share
    count = source.count
    if processes == 1:
        return 0, count
    if count is None:
        count = sum(map(len, sources.blocks(source, positions, 0, block)))
    if count < processes:
        raise InputError(f'"{source.path}" has {count} rows for {processes} processes; expected one for each at least.')
    return count * index // processes, count * (index + 1) // processes
