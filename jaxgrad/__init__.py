"""Backpropagation you can read, check and batch, in JAX."""

from jaxgrad import neuron, reference
from jaxgrad.errors import InputError, JaxgradError, TableError
from jaxgrad.record import Record

__version__ = "0.1.0"

__all__ = ["InputError", "JaxgradError", "Record", "TableError", "__version__", "neuron", "reference"]
