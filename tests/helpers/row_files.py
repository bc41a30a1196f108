"""Files of rows for the tests of evaluate, written and read by pyarrow and NumPy, and what should be in the output."""

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq

from jaxgrad import batch, neuron
from jaxgrad.__main__ import main

W = "0.5,-0.3,0.1"
NAMES = ["z", "k", "h", "f", "df/dz", "df/dk", "df/dh", "df/dw0", "df/dw1", "df/dw2", "df/dx0", "df/dx1"]
FORMATS = (".npy", ".parquet", ".arrow", ".csv")


def inputs(rows, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, 2), dtype=np.float32)


def save(path, x, names=("a", "b")):
    table = pa.table({name: x[:, i] for i, name in enumerate(names)})
    match path.suffix:
        case ".npy":
            np.save(path, x)
        case ".parquet":
            pq.write_table(table, path, row_group_size=300)
        case ".arrow":
            with pa.ipc.new_file(path, table.schema) as file:
                file.write_table(table, max_chunksize=170)
        case ".csv":
            pyarrow.csv.write_csv(table, path)
    return path


def read(path):
    match path.suffix:
        case ".npy":
            table = np.load(path)
            return {name: table[name] for name in table.dtype.names}
        case ".parquet":
            table = pq.read_table(path)
        case ".arrow":
            table = pa.ipc.open_file(path).read_all()
        case ".csv":
            table = pyarrow.csv.read_csv(path)
    return {name: table[name].to_numpy() for name in table.column_names}


def quantities(x, w=(0.5, -0.3, 0.1)):
    w = np.asarray(w, x.dtype)
    return {k: np.array(v) for k, v in neuron.quantities(batch(neuron.backprop, (0, None))(x, w)).items()}


def run(*arguments):
    return main(["evaluate", *map(str, arguments)])


def files_of(out):
    """The names of an output's files: .npy and .csv have a seal beside them."""
    return [out.name, *([f"{out.name}.seal.json"] if out.suffix in (".npy", ".csv") else [])]
