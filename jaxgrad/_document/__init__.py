"""The port, checked: the document's printed numbers against every route, and the report of it."""
