"""The document's 25 printed numbers, and tables of your own."""

from jaxgrad._document.load import load
from jaxgrad._document.table import Number, Table

__all__ = ["Number", "Table", "load"]
