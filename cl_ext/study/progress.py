"""How a run goes: a live display on a terminal, plain lines elsewhere, both with an estimate of the end."""

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from cl_ext.study.cellspec import CellSpec
from cl_ext.study.executors.local import Outcome
from cl_ext.study.spec import Study

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Estimate:
    """When a run should end: mean wall time of the method's finished cells, of all cells where it has none yet."""

    def __init__(self, left: Sequence[CellSpec], workers: int) -> None:
        self._left = Counter((cell.method, cell.scenario) for cell in left)
        self._workers = workers
        self._times: dict[tuple[str, str], list[float]] = defaultdict(list)

    def finished(self, cell: CellSpec, seconds: float) -> None:
        """A cell ended after so many seconds of wall time."""
        self._left[cell.method, cell.scenario] -= 1
        self._times[cell.method, cell.scenario].append(seconds)

    def seconds(self) -> float | None:
        """Seconds to the end; None before the first cell ended."""
        every = [seconds for times in self._times.values() for seconds in times]
        if not every:
            return None
        total = sum(every) / len(every)
        work = 0.0
        for key, count in self._left.items():
            times = self._times.get(key)
            work += count * (sum(times) / len(times) if times else total)
        return work / self._workers


def duration(seconds: float | None) -> str:
    """Seconds in words: `about 3 min`."""
    if seconds is None:
        return "unknown yet"
    if seconds < 90:
        return f"about {seconds:.0f} s"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h"


class _Base:
    def __init__(self, console: Console) -> None:
        self.console = console
        self.study = ""
        self.done = 0
        self.left = 0
        self.failed = 0
        self.estimate = Estimate([], 1)

    def begin(self, study: Study, total: int, left: Sequence[CellSpec], workers: int) -> None:
        """See `cl_ext.study.runner.Progress`."""
        self.study, self.left, self.done, self.failed = study.name, len(left), 0, 0
        self.estimate = Estimate(left, workers)
        self.console.print(
            f"{study.name}: {total} cells, {total - len(left)} done before, {len(left)} to run on {workers} workers"
        )

    def count(self, outcome: Outcome) -> None:
        """Counts an ended cell and says so where it failed."""
        self.done += 1
        self.estimate.finished(outcome.cell, outcome.seconds)
        if outcome.status not in ("done", "busy"):
            self.failed += 1
            text = f"{outcome.status}: {outcome.cell.title()} ({outcome.cell.run_id}): {outcome.message}"
            self.console.print(text, style="red", markup=False, highlight=False, soft_wrap=True)


class PlainProgress(_Base):
    """A line every few seconds: for logs and pipes."""

    def __init__(self, console: Console, every: float = 5.0) -> None:
        super().__init__(console)
        self._every = every
        self._last = 0.0

    def update(self, outcome: Outcome) -> None:
        """See `cl_ext.study.runner.Progress`."""
        if outcome.status == "started":
            return
        self.count(outcome)
        if time.monotonic() - self._last >= self._every or self.done == self.left:
            self._last = time.monotonic()
            self.console.print(
                f"{self.study}: {self.done} of {self.left} cells, {self.failed} failed, "
                f"ends in {duration(self.estimate.seconds())}; last {outcome.cell.title()} in {outcome.seconds:.1f} s",
                highlight=False, soft_wrap=True,
            )  # fmt: skip

    def end(self) -> None:
        """See `cl_ext.study.runner.Progress`."""


class LiveProgress(_Base):
    """A bar with what runs now, on a terminal."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._running: list[str] = []
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"), console=console,
        )  # fmt: skip
        self._task: TaskID | None = None

    def begin(self, study: Study, total: int, left: Sequence[CellSpec], workers: int) -> None:
        """See `cl_ext.study.runner.Progress`."""
        super().begin(study, total, left, workers)
        self._bar.start()
        self._task = self._bar.add_task(study.name, total=len(left), note="")

    def update(self, outcome: Outcome) -> None:
        """See `cl_ext.study.runner.Progress`."""
        title = outcome.cell.title()
        if outcome.status == "started":
            self._running.append(title)
        else:
            if title in self._running:
                self._running.remove(title)
            self.count(outcome)
        note = f"ends in {duration(self.estimate.seconds())}; now {', '.join(self._running)}"
        if self.failed:
            note = f"[red]{self.failed} failed[/red]; {note}"
        assert self._task is not None
        self._bar.update(self._task, completed=self.done, note=note)

    def end(self) -> None:
        """See `cl_ext.study.runner.Progress`."""
        self._bar.stop()


def progress_for(console: Console) -> Any:
    """The live display on a terminal, plain lines elsewhere."""
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)
