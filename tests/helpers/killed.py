"""A process that kills itself while it evaluates: with SIGKILL, so that nothing at all is tidied up."""

import os
import signal
import sys
import threading

import jax

from jaxgrad.__main__ import main
from jaxgrad._evaluate import evaluate
from jaxgrad._evaluate.output import part

# The calls of publishing, in the order that they are made: a kill can come before or after each.
STEPS = (
    (part.Part, "_publish_seal"),
    (part, "write_whole"),
    (os, "link"),
    (os, "unlink"),
    (os, "replace"),
    (part, "_sync_folder"),
    (part.Log, "remove"),
)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def evaluate_and_die(arguments, moment, compiled):
    """Runs the command; `moment` is ("block", n, seconds after it) or ("step", its number, "before" or "after")."""
    jax.config.update("jax_compilation_cache_dir", compiled)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    kind, number, when = moment
    if kind == "block":
        _die_after_block(number, when)
    else:
        _die_at_step(*STEPS[number], when)
    sys.exit(main(arguments))


def _die_after_block(number, seconds):
    original, done = evaluate.written_to, []

    def write(*args):
        original(*args)
        done.append(True)
        if len(done) == number:
            threading.Timer(seconds, kill).start()

    evaluate.written_to = write


def _die_at_step(owner, name, when):
    original, publish = getattr(owner, name), part.Part.publish

    def dying(*args, **options):
        if when == "before":
            kill()
        original(*args, **options)
        kill()

    def publishing(part, seal):
        setattr(owner, name, dying)
        publish(part, seal)

    part.Part.publish = publishing
