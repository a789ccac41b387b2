"""What tests that run in one process, and in several at once, take from each other."""

from __future__ import annotations

import gc
import os

# Workers share the cores. torch reads this when it is imported, which is later.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    share = max(1, (os.cpu_count() or 1) // int(workers))
    os.environ.setdefault("OMP_NUM_THREADS", str(share))


def pytest_collection_finish() -> None:
    """Have the garbage collector pass over what was imported and collected.

    All of that stays until the end, and going through it takes a second each time a
    test asks what is left in memory. What tests make afterwards it sees as before.
    """
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let the interpreter end as usual."""
    gc.unfreeze()
