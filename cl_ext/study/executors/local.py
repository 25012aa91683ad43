"""One process a cell, forked from a server that has imported torch and Avalanche and done nothing else.

A fork costs about 0.1 s where a fresh interpreter costs 7 s. One cell's death never touches another; a cell ends when
its launcher dies; a cell that is killed from outside is tried once more, then recorded as failed.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from pathlib import Path
from typing import Any

from cl_ext.study.cellspec import SCHEMA, CellSpec
from cl_ext.study.environment import environment
from cl_ext.study.store import FINISHED, Store

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_TRIES = 2


@dataclass(frozen=True)
class Outcome:
    """How a cell's process ended.

    Attributes:
        cell: The cell.
        status: The record's status; `busy` where another launcher runs this cell; `started` when it begins.
        message: The error's one line, where there is one.
        seconds: Wall time of the process.
    """

    cell: CellSpec
    status: str
    message: str = ""
    seconds: float = 0.0


@dataclass
class _Running:
    cell: CellSpec
    process: Any
    pipe: connection.Connection
    started: float
    tries: int


class LocalExecutor:
    """Runs cells in processes of their own on this machine.

    Args:
        store: Where the records go.
        options: Fields of `CellOptions`, and `tuning`: by method and scenario, where the values come from.
        workers: Processes at a time.
        time_limit: Seconds that a cell may run, None for no limit.
    """

    def __init__(self, store: Store, options: Mapping[str, Any], workers: int, time_limit: float | None = None) -> None:
        self._store = store
        self._options = dict(options)
        self._workers = workers
        self._time_limit = time_limit
        environment()  # as in the fork server: of the code that is loaded now
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["cl_ext.study.executors.fork_server", "cl_ext.study.preload"])

    def run(self, cells: Sequence[CellSpec]) -> Iterator[Outcome]:
        """Runs the cells; yields an outcome when one starts and when one ends.

        Closing the generator (Ctrl-C does) kills the running cells and nothing else.
        """
        waiting = deque((cell, 1) for cell in cells)
        running: list[_Running] = []
        try:
            while waiting or running:
                while waiting and len(running) < self._workers:
                    cell, tries = waiting.popleft()
                    running.append(self._start(cell, tries))
                    yield Outcome(cell, "started")
                for job in self._ended(running):
                    running.remove(job)
                    outcome = self._outcome(job)
                    if outcome is None:
                        waiting.appendleft((job.cell, job.tries + 1))
                    else:
                        yield outcome
        finally:
            for job in running:
                job.process.kill()
            for job in running:
                job.process.join()

    def _start(self, cell: CellSpec, tries: int) -> _Running:
        mine, theirs = self._context.Pipe()
        process = self._context.Process(
            target=run_in_child,
            args=(cell.to_dict(), self._options, str(self._store.root), theirs),
            name=cell.title(),
        )
        with _bare_main(), _thread_variables(self._options.get("threads", 1)), _deaf():
            process.start()
        theirs.close()
        return _Running(cell, process, mine, time.monotonic(), tries)

    def _ended(self, running: list[_Running]) -> list[_Running]:
        """Waits until a process ends or outlives the time limit."""
        timeout = None
        if self._time_limit is not None:
            oldest = min(job.started for job in running)
            timeout = max(0.0, oldest + self._time_limit - time.monotonic())
        ready = set(connection.wait([job.process.sentinel for job in running], timeout))
        ended = []
        for job in running:
            late = self._time_limit is not None and time.monotonic() - job.started >= self._time_limit
            if job.process.sentinel in ready or late:
                ended.append(job)
        return ended

    def _outcome(self, job: _Running) -> Outcome | None:
        """The outcome of an ended job; None where it is to be tried again."""
        seconds = time.monotonic() - job.started
        late = job.process.is_alive()
        if late:
            job.process.kill()
        job.process.join()
        message = _received(job.pipe)
        job.pipe.close()
        if message is not None:
            return Outcome(job.cell, message[0], message[1], seconds)
        if late:
            text = f"ran longer than the time limit of {self._time_limit:g} s"
            return self._failed(job, "timeout", text, seconds)
        code = job.process.exitcode
        reason = f"killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
        if job.tries < _TRIES:
            return None
        hint = "; out of memory?" if code == -signal.SIGKILL else ""
        return self._failed(job, "failed", f"the process was {reason}, {job.tries} times{hint}", seconds)

    def _failed(self, job: _Running, status: str, text: str, seconds: float) -> Outcome:
        log = log_path(self._store, job.cell.run_id)
        record = {
            "schema": SCHEMA,
            "run_id": job.cell.run_id,
            "status": status,
            "error": {"type": status, "message": text, "traceback": ""},
            "costs": {"seconds": seconds},
        }
        self._store.write(job.cell, record, _made(job.cell, self._options), log if log.is_file() else text)
        log.unlink(missing_ok=True)
        return Outcome(job.cell, status, text, seconds)


def _made(cell: CellSpec, options: Mapping[str, Any]) -> dict[str, Any]:
    """How a record came about: versions, machine, and where the values of its method come from."""
    tuning = (options.get("tuning") or {}).get(cell.method, {}).get(cell.scenario)
    return environment() | ({"tuning": tuning} if tuning else {})


def log_path(store: Store, run_id: str) -> Path:
    """Where a running cell's output goes until its record is written."""
    return store.root / "locks" / f"{run_id}.log"


def run_in_child(fields: dict[str, Any], options: dict[str, Any], root: str, pipe: connection.Connection) -> None:
    """What a cell's process does: lock, run, write, report. Its output goes into the cell's log."""
    threading.Thread(target=_die_with_launcher, args=(pipe,), daemon=True).start()
    from cl_ext.study.cell import CellOptions, run_cell

    cell, store = CellSpec.from_dict(fields), Store(root)
    with store.lock(cell.run_id) as held:
        if not held:
            pipe.send(("busy", "another launcher runs this cell"))
            return
        if store.status(cell.run_id) == FINISHED:  # another launcher finished it since this one planned
            pipe.send((FINISHED, ""))
            return
        log = log_path(store, cell.run_id)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.close(handle)
        record = run_cell(cell, CellOptions(**{key: value for key, value in options.items() if key != "tuning"}))
        sys.stdout.flush()
        sys.stderr.flush()
        # which data it was belongs to the versions and the machine
        store.write(cell, record, _made(cell, options) | {"data": record.pop("data", {})}, log)
        log.unlink(missing_ok=True)
        error = record["error"]
        pipe.send((record["status"], f"{error['type']}: {error['message']}" if error else ""))


def _die_with_launcher(pipe: connection.Connection) -> None:
    """Ends this process when the launcher's end of the pipe closes, however the launcher died."""
    try:
        pipe.recv()
    except (EOFError, OSError):
        os._exit(3)


def _received(pipe: connection.Connection) -> tuple[str, str] | None:
    try:
        return pipe.recv() if pipe.poll() else None
    except (EOFError, OSError):
        return None


@contextmanager
def _bare_main() -> Iterator[None]:
    """Keeps a child from importing the launcher's main module again: a script needs no `__main__` guard then."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _deaf() -> Iterator[None]:
    """The fork server, which starts in here, hears no Ctrl-C before it can end without a traceback."""
    resource_tracker.ensure_running()  # starting it later would let the signal through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _thread_variables(threads: int) -> Iterator[None]:
    """The thread counts that the fork server reads when it imports numpy and torch."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
