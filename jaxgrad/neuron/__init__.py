"""The document's neuron: z, k, h, f, and their gradients by hand and by autodiff.

    z = w0*x0 + w1*x1 + w2      k = exp(-z)      h = 1 + k      f = 1/h

`forward` and `chain_rule` are the document's chain, and part from the truth where k overflows. `sigmoid` and
`backprop` are the same mathematics, written to be right for every z. The document's report checks the chain, as it
stands there.

Arithmetic is IEEE 754's in the dtype of the arguments: NaN gives NaN and infinities go where it sends them. The
one exception is XLA's own: on CPU it flushes subnormal float32 and float64 numbers to 0.
"""

from jaxgrad.neuron._arrow import arrow_mapper
from jaxgrad.neuron._backprop import backprop
from jaxgrad.neuron._chain import NAMES, chain_rule, f, forward, h, k, z
from jaxgrad.neuron._quantities import columns, quantities
from jaxgrad.neuron._sigmoid import sigmoid

__all__ = [
    "NAMES",
    "arrow_mapper",
    "backprop",
    "chain_rule",
    "columns",
    "f",
    "forward",
    "h",
    "k",
    "quantities",
    "sigmoid",
    "z",
]
