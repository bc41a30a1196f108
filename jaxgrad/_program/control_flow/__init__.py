"""JAX's structured operations (jit, scan, cond, ...): how each is read from a traced program, and rebuilt.

A structured operation has bodies, programs of their own. To find the tags in them and to thread probes and values
through them takes a few facts about each operation, one `Control`. All reading of its parameters is in this room,
and what it is rebuilt with is public: `lax.scan`, `lax.switch`, `jax.jit`, ...
"""
