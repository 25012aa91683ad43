"""What runs in a store now, what is left, and when it should end; reads files and locks only."""

import fcntl
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cl_ext.study.progress import duration
from cl_ext.study.store import Store


def running(store: Store) -> dict[str, float]:
    """The cells that some process holds the lock of, with the seconds since their logs began."""
    held = {}
    for path in sorted((store.root / "locks").glob("*.lock")):
        with path.open() as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                held[path.stem] = time.time() - path.stat().st_mtime
    return held


def status_of(folder: Path | str) -> Iterator[str]:
    """Lines that say how each study of a store stands.

    Args:
        folder: The store.
    """
    store = Store(folder)
    held = running(store)
    studies = store.studies()
    if not studies:
        yield f"{folder}: no study was run into this folder"
    for name, content in studies.items():
        states = Counter(store.status(run_id) or "missing" for run_id in content["cells"])
        words = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        now = [run_id for run_id in content["cells"] if run_id in held]
        yield f"{name}: {len(content['cells'])} cells: {words}; {len(now)} running now"
        for run_id in now:
            yield f"  running: {run_id} for {held[run_id]:.0f} s"
        records = [store.record(run_id) for run_id in content["cells"]]
        seconds = [r["costs"]["seconds"] for r in records if r is not None and r["costs"].get("seconds")]
        left = states["missing"]
        if left and now and seconds:
            yield f"  ends in {duration(left * sum(seconds) / len(seconds) / len(now))}, if it goes on as so far"
        elif left:
            yield f"  {left} cells are left and nothing runs: the same `cl-ext run` goes on from here"
