"""The engines that drive a mapper, for real: each has to give what the mapper alone gives.

Minutes of start-up, so these run weekly, and by `pytest -m deep tests/arrow`. An engine that is not installed is
skipped; JAXGRAD_REQUIRE_ENGINES=1 makes that an error.
"""

import importlib
import os
import shutil
import signal
import sys

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from helpers.row_files import inputs, run
from jaxgrad import InputError, arrow_mapper, batch, neuron

pytestmark = [
    pytest.mark.deep,
    pytest.mark.filterwarnings("ignore"),  # the engines', of the engines' own
]

ROWS = 100_000
W = np.array([0.5, -0.3, 0.1], np.float32)


def engine(name):
    """A module that runs mappers."""
    if os.environ.get("JAXGRAD_REQUIRE_ENGINES") == "1":
        return importlib.import_module(name)
    return pytest.importorskip(name)


@pytest.fixture(scope="module")
def rows():
    x = inputs(ROWS)
    return pa.table({"id": np.arange(ROWS), "a": x[:, 0], "b": x[:, 1]})


@pytest.fixture(scope="module")
def mapper():
    return neuron.arrow_mapper(W, columns=["a", "b"], keep=["f", "df/dw*"], carry={"id": "int64"})


@pytest.fixture(scope="module")
def expected(mapper, rows):
    return mapper(rows).combine_chunks()


@pytest.fixture(scope="module")
def parquet(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    pq.write_table(rows, path, row_group_size=10_000)
    return path


def same(found, expected):
    found = pa.table(found) if not isinstance(found, pa.Table) else found
    assert found.column_names == expected.column_names
    assert found.cast(expected.schema).sort_by("id").combine_chunks().equals(expected)


@pytest.fixture(scope="module")
def ray():
    ray = engine("ray")
    importlib.import_module("ray.data")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def of_ray(ray, rows):
    return ray.data.from_arrow([rows.slice(start, 5000) for start in range(0, ROWS, 5000)])


def test_ray_data_maps_batches_in_two_workers(ray, rows, mapper, expected):
    done = of_ray(ray, rows).map_batches(mapper, batch_format="pyarrow", batch_size=3000, concurrency=2)
    same(pa.concat_tables(ray.get(done.to_arrow_refs())), expected)


def test_ray_data_goes_on_when_a_worker_is_killed(ray, rows, mapper, expected, tmp_path):
    def killed_once(batch):
        try:
            (tmp_path / "killed").touch(exist_ok=False)
        except FileExistsError:
            return mapper(batch)
        mapper(batch)
        os.kill(os.getpid(), signal.SIGKILL)

    done = of_ray(ray, rows).map_batches(killed_once, batch_format="pyarrow", batch_size=3000, concurrency=2)
    same(pa.concat_tables(ray.get(done.to_arrow_refs())), expected)
    assert (tmp_path / "killed").exists()


def test_ray_data_shows_an_error_of_the_mapper(ray, rows, mapper):
    bad = rows.set_column(1, "a", pa.array(np.where(np.arange(ROWS) == 77_777, np.nan, 0), pa.float32()))
    with pytest.raises(Exception, match=r'row 2777 of the batch, column "a": it is nan'):
        of_ray(ray, bad).map_batches(mapper, batch_format="pyarrow", batch_size=None).materialize()


@pytest.fixture(scope="module")
def spark():
    sql = engine("pyspark.sql")
    os.environ["PYSPARK_PYTHON"] = sys.executable  # of the workers
    if os.environ.get("JAXGRAD_REQUIRE_ENGINES") != "1" and shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    # A task may fail four times on a cluster; a local one once, unless told otherwise.
    builder = sql.SparkSession.builder.master("local[2, 4]").config("spark.ui.enabled", "false")
    session = builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", 3000).getOrCreate()
    yield session
    session.stop()


def test_spark_maps_in_arrow(spark, parquet, mapper, expected):
    types = importlib.import_module("pyspark.sql.pandas.types")
    done = spark.read.parquet(str(parquet)).repartition(5).mapInArrow(mapper, types.from_arrow_schema(mapper.schema))
    same(done.toArrow(), expected)


def test_spark_goes_on_when_a_worker_is_killed(spark, parquet, mapper, expected, tmp_path):
    schema = importlib.import_module("pyspark.sql.pandas.types").from_arrow_schema(mapper.schema)

    def killed_once(batches):
        for i, found in enumerate(mapper(batches)):
            if i == 1 and not (tmp_path / "killed").exists():
                (tmp_path / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield found

    done = spark.read.parquet(str(parquet)).repartition(4).mapInArrow(killed_once, schema)
    same(done.toArrow(), expected)
    assert (tmp_path / "killed").exists()


def test_dask_maps_partitions(parquet, mapper, expected):
    dask = engine("dask.dataframe")

    def of_pandas(part):
        return mapper(pa.Table.from_pandas(part)).to_pandas()

    frame = dask.read_parquet(parquet, split_row_groups=True)
    done = frame.map_partitions(of_pandas, meta=mapper.schema.empty_table().to_pandas())
    assert frame.npartitions > 3
    for scheduler in ("threads", "processes"):
        same(pa.Table.from_pandas(done.compute(scheduler=scheduler, num_workers=2), preserve_index=False), expected)


def test_duckdb_streams_through_a_mapper(parquet, mapper, expected):
    duckdb = engine("duckdb")
    # A connection streams one result at a time: what reads the rows is not what reads the results.
    batches = duckdb.connect().sql(f"select * from '{parquet}' where id >= 0").to_arrow_reader(7000)
    results = pa.RecordBatchReader.from_batches(mapper.schema, mapper(batches))  # noqa: F841  DuckDB finds it by name
    same(duckdb.sql("select * from results").to_arrow_table(), expected)


def test_polars_and_pandas_give_and_take_tables(rows, mapper, expected):
    polars = engine("polars")
    engine("pandas")
    same(polars.from_arrow(mapper(polars.from_arrow(rows).to_arrow())).to_arrow(), expected)
    same(pa.Table.from_pandas(mapper(pa.Table.from_pandas(rows.to_pandas())).to_pandas()), expected)


def test_a_function_of_its_own_goes_through_an_engine(ray):
    mapper = arrow_mapper(batch(lambda x, y: {"area": x * y}), ["x", "y"], dtype="float64")
    rows = pa.table({"x": [1.0, 2.0], "y": [3, 4]})
    done = ray.data.from_arrow(rows).map_batches(mapper, batch_format="pyarrow")
    assert done.take_all() == [{"area": 3.0}, {"area": 8.0}]
    with pytest.raises(InputError, match="the batch is a dict"):
        mapper(rows.to_pydict())


@pytest.fixture(scope="module")
def s3():
    """A server of S3's on loopback, and the options of a URL that lead to it."""
    engine("moto")
    server = importlib.import_module("moto.server").ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        options = f"endpoint_override={host}:{port}&scheme=http&region=us-east-1"
        system, _ = pa.fs.FileSystem.from_uri(f"s3://bucket?{options}&allow_bucket_creation=true")
        system.create_dir("bucket")
        yield system, options
    server.stop()


def test_a_data_set_on_s3_is_read_and_written(s3, rows, tmp_path):
    system, options = s3
    for i in range(4):
        with system.open_output_stream(f"bucket/rows/part={i}/r.parquet") as file:
            pq.write_table(rows.slice(i * 1000, 1000), file)
        (tmp_path / "rows" / f"part={i}").mkdir(parents=True)
        pq.write_table(rows.slice(i * 1000, 1000), tmp_path / "rows" / f"part={i}" / "r.parquet")
    asked = ("-w", "0.5,-0.3,0.1", "--columns", "a,b")
    assert run(tmp_path / "rows", *asked, "-o", tmp_path / "out") == 0

    def same_objects():
        for i in range(4):
            with system.open_input_stream(f"bucket/out/part={i}/r.parquet") as file:
                assert file.readall() == (tmp_path / "out" / f"part={i}" / "r.parquet").read_bytes()
        with system.open_input_stream("bucket/out/manifest.json") as file:
            assert b"s3://bucket/rows/part=3/r.parquet" in file.readall()

    url = f"s3://bucket/rows?{options}", *asked, "-o", f"s3://bucket/out?{options}"
    assert run(*url) == 0
    same_objects()
    assert run(*url) == 2
    system.delete_file("bucket/out/part=2/r.parquet")
    assert run(*url, "--resume") == 0
    same_objects()
    assert run(f"s3://bucket/rows/part=*/*.parquet?{options}", *asked, "-o", tmp_path / "here") == 0
    assert (tmp_path / "here" / "part=1" / "r.parquet").exists()
    assert run(f"s3://bucket/rows?{options}", *asked, "-o", f"s3://bucket/blocks?{options}", "--batch-size", 128) == 0
    with system.open_input_file("bucket/blocks/part=0/r.parquet") as file:
        assert pq.read_table(file)["f"].to_numpy().tobytes() == pq.read_table(
            tmp_path / "out" / "part=0" / "r.parquet", partitioning=None
        )["f"].to_numpy().tobytes()  # fmt: skip
    assert run(f"s3://none/rows?{options}", *asked, "-o", tmp_path / "none") == 2
