"""How long jaxgrad's imports and the report take beyond `import jax`, each time in a fresh process.

    python bench/startup.py

prints one JSON line a case: what `import jaxgrad` adds where jax has been imported, by itself, with the name that most
programs use, and with all of them, for each is imported when it is first used (figures: 0.06, 0.06 and 0.1 s); and
"report", what `python -m jaxgrad` takes beyond `import jax` and a first jit of the same neuron (figure: 1.5 s).
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time

import jax
import numpy as np

import jaxgrad

REPEATS = 9
TIMED = "import jax, time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
IMPORTS = {  # statement -> figure
    "import jaxgrad": 0.06,
    "from jaxgrad import retain_grads": 0.06,
    "from jaxgrad import *": 0.1,
}
FIRST_JIT = """
import jax, jax.numpy as jnp
f = jax.jit(lambda x, w: 1 / (1 + jnp.exp(-(w[:-1] @ x + w[-1]))))(jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1]))
print(f.item())
"""


def run(*arguments: str) -> tuple[str, float]:
    """A fresh process: what it printed, and its wall-clock seconds."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    return done.stdout, time.perf_counter() - start


def import_seconds(statement: str) -> float:
    return float(run("-c", TIMED.format(statement))[0])


def report_seconds() -> float:
    """The report's time beyond that of the first jit, run in turn so that both meet the same load."""
    first, first_seconds = run("-c", FIRST_JIT)
    report, report_seconds = run("-m", "jaxgrad")
    assert first == "0.5\n"
    assert "\n25 of 25 numbers agree" in report
    return report_seconds - first_seconds


def line(case: str, seconds: list[float], figure: float) -> str:
    median = statistics.median(seconds)
    return json.dumps(
        {
            "case": case,
            "device": f"{jax.default_backend()}, {os.cpu_count()} cores, {platform.machine()}",
            "python": platform.python_version(),
            "jax": jax.__version__,
            "numpy": np.__version__,
            "jaxgrad": jaxgrad.__version__,
            "size": 1,
            "repeats": len(seconds),
            "median_s": round(median, 4),
            "spread_s": [round(min(seconds), 4), round(max(seconds), 4)],
            "figure_s": figure,
            "holds": median <= figure,
        }
    )


if __name__ == "__main__":
    import_seconds("from jaxgrad import *")  # not counted: it compiles the bytecode and warms the disk's cache
    for statement, figure in IMPORTS.items():
        print(line(statement, [import_seconds(statement) for _ in range(REPEATS)], figure))
    print(line("report", [report_seconds() for _ in range(REPEATS)], 1.5))
