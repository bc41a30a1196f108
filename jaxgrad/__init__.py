"""Backpropagation you can read, check and batch, in JAX."""

import jaxgrad._startup  # noqa: F401 - first: it answers for what goes wrong while the rest is imported
from jaxgrad import neuron, reference
from jaxgrad._batch.arrow.mapper import ArrowMapper, arrow_mapper
from jaxgrad._batch.batch import Batched, batch
from jaxgrad._compare.compare import compare
from jaxgrad._compare.comparison import Comparison
from jaxgrad._compare.diagnosis.diagnose import Diagnosis
from jaxgrad._compare.matches import assert_matches
from jaxgrad._compare.oracles.complex_step import complex_step
from jaxgrad._compare.oracles.finite_difference import finite_difference
from jaxgrad._compare.oracles.in_float64 import in_float64
from jaxgrad._compare.oracles.rounding import with_rounding
from jaxgrad._compare.oracles.taylor import taylor_order
from jaxgrad._compare.ports.align import align
from jaxgrad._compare.ports.torch import retain_torch
from jaxgrad._compare.rows import Row
from jaxgrad._errors import DifferenceError, InputError, JaxgradError, OutputError, TableError, TagError
from jaxgrad._graph.grading.mark import Grade
from jaxgrad._graph.graph import Edge, Node
from jaxgrad._ledger.ledger import Ledger, ledger
from jaxgrad._names.tag import tag
from jaxgrad._names.watch import watch
from jaxgrad._record import Record
from jaxgrad._retain.retain import retain_grads, retain_vjp

__version__ = "0.1.0"

__all__ = [
    "ArrowMapper",
    "Batched",
    "Comparison",
    "Diagnosis",
    "DifferenceError",
    "Edge",
    "Grade",
    "InputError",
    "JaxgradError",
    "Ledger",
    "Node",
    "OutputError",
    "Record",
    "Row",
    "TableError",
    "TagError",
    "__version__",
    "align",
    "arrow_mapper",
    "assert_matches",
    "batch",
    "compare",
    "complex_step",
    "finite_difference",
    "in_float64",
    "ledger",
    "neuron",
    "reference",
    "retain_grads",
    "retain_torch",
    "retain_vjp",
    "tag",
    "taylor_order",
    "watch",
    "with_rounding",
]
