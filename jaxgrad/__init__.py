"""Backpropagation you can read, check and batch, in JAX."""

import importlib
from typing import TYPE_CHECKING, Any

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

# Each name is imported when it is first used (PEP 562): who retains does not wait for what draws and evaluates.
_HOME = {
    "ArrowMapper": "_batch.arrow.mapper",
    "Batched": "_batch.batch",
    "Comparison": "_compare.comparison",
    "Diagnosis": "_compare.diagnosis.diagnose",
    "DifferenceError": "_errors",
    "Edge": "_graph.graph",
    "Grade": "_graph.grading.mark",
    "InputError": "_errors",
    "JaxgradError": "_errors",
    "Ledger": "_ledger.ledger",
    "Node": "_graph.graph",
    "OutputError": "_errors",
    "Record": "_record",
    "Row": "_compare.rows",
    "TableError": "_errors",
    "TagError": "_errors",
    "align": "_compare.ports.align",
    "arrow_mapper": "_batch.arrow.mapper",
    "assert_matches": "_compare.matches",
    "batch": "_batch.batch",
    "compare": "_compare.compare",
    "complex_step": "_compare.oracles.complex_step",
    "finite_difference": "_compare.oracles.finite_difference",
    "in_float64": "_compare.oracles.in_float64",
    "ledger": "_ledger.ledger",
    "neuron": "neuron",
    "reference": "reference",
    "retain_grads": "_retain.retain",
    "retain_torch": "_compare.ports.torch",
    "retain_vjp": "_retain.retain",
    "tag": "_names.tag",
    "taylor_order": "_compare.oracles.taylor",
    "watch": "_names.watch",
    "with_rounding": "_compare.oracles.rounding",
}

if TYPE_CHECKING:
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
else:

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = importlib.import_module(f"{__name__}.{_HOME[name]}")
        globals()[name] = found = home if _HOME[name] == name else getattr(home, name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
