"""Methods task by task: final accuracy of each, worst forgetting, and differences from a reference, seed by seed."""

from collections.abc import Sequence

from cl_ext.metrics import forgetting_per_experience
from cl_ext.report.drawing.runs import Run, boards
from cl_ext.report.statistics import Difference, paired_difference, summarize
from cl_ext.report.tables.texts import board_title

import numpy as np
import pandas as pd


def seen_last(run: Run, tasks: slice) -> float:
    """A run's mean final accuracy on some of the tasks; NaN if one is undefined."""
    return float(np.mean(run.matrix[-1][tasks]))


def differences(runs: Sequence[Run], labels: Sequence[str], reference: str, tasks: slice) -> dict[str, Difference]:
    """The differences from a reference's final accuracy on some of the tasks, seed by seed, by the row's label."""
    found = {label: {run.seed: seen_last(run, tasks) for run in runs if run.label == label} for label in labels}
    return {label: paired_difference(found[label], found[reference]) for label in labels if label != reference}


def worst_forgetting(run: Run) -> float:
    """The largest forgetting of any task but the last (Chaudhry et al. 2018); NaN where none is defined."""
    values = forgetting_per_experience(run.matrix)
    defined = values[~np.isnan(values)]
    return float(defined.max()) if defined.size else float("nan")


def by_task_tables(frame: pd.DataFrame, reference: str, late: int) -> list[str]:
    """A Markdown table for each board that has the reference; accuracies in per cent, differences in points.

    Args:
        frame: the tidy frame.
        reference: the label of the row that others are compared with.
        late: how many of the last tasks the last column is about.

    Raises:
        ValueError: no board has a finished cell of the reference; the message names what there is.
    """
    tables = []
    labels: set[str] = set()
    for board in boards(frame):
        labels |= set(board.labels)
        if reference not in board.labels:
            continue
        T = board.experiences
        last = slice(max(0, T - late), T)
        whole = differences(board.runs, board.labels, reference, slice(0, T))
        at_end = differences(board.runs, board.labels, reference, last)
        head = ["method", "seeds", *(f"task {task + 1}" for task in range(T)), "mean", "worst forgetting"]
        head += [f"mean - {reference}", f"last {late} tasks - {reference}"]
        lines = [f"{board_title(board.table)}: final accuracy [%], means over seeds", "", _row(head)]
        lines.append(_row(["---"] * len(head)))
        for label in board.labels:
            runs = [run for run in board.runs if run.label == label]
            final = 100 * np.mean([run.matrix[-1] for run in runs], axis=0)
            mean = summarize([100 * seen_last(run, slice(0, T)) for run in runs])
            forgotten = 100 * max(worst_forgetting(run) for run in runs)
            cells = [label, str(len(runs)), *(f"{value:.1f}" for value in final), _interval(mean.mean, mean.half_width)]
            cells += [f"{forgotten:.2f}", _points(whole.get(label)), _points(at_end.get(label))]
            lines.append(_row(cells))
        tables.append("\n".join(lines))
    if not tables:
        raise ValueError(f"no finished cell of {reference!r}; there are {', '.join(sorted(labels)) or 'none'}")
    return tables


def size_tables(frame: pd.DataFrame) -> list[str]:
    """A Markdown table for each board: how network, memory and time grow from the first to the last task.

    Columns are means over seeds. Parameters are those of the networks that predict; the bytes beside are the records'
    `extra_bytes`: what a method keeps beside its networks (masks, copies for finished tasks, auto-encoders, memories),
    and what these have more than the study's network. Time is CPU seconds of training a task, the mean of two early
    tasks and of the last two, since one is noisy; the first task of many methods has fewer phases, so that with five
    tasks or more the early ones are the second and third. Records from before sizes were kept are left out.
    """
    tables = []
    memory = frame.groupby("run_id")["peak_memory_bytes"].first() if "peak_memory_bytes" in frame else pd.Series()
    for board in boards(frame):
        head = ["method", "seeds", "parameters, untrained", "at the end", "times as many", "bytes beside, end"]
        head += ["CPU s, early tasks", "late tasks", "times as long", "peak memory [MB]"]
        lines = [f"{board_title(board.table)}: growth over {board.experiences} tasks", "", _row(head)]
        lines.append(_row(["---"] * len(head)))
        for label in board.labels:
            runs = [run for run in board.runs if run.label == label and run.sizes]
            if not runs:
                continue
            first, last = (np.mean([run.sizes[at]["parameters"] for run in runs]) for at in (0, -1))
            seconds = np.mean([np.diff([size["train_cpu_seconds"] for size in run.sizes]) for run in runs], axis=0)
            skip = 1 if len(seconds) >= 5 else 0
            early, late = float(seconds[skip : skip + 2].mean()), float(seconds[-2:].mean())
            peaks = [memory[run.run_id] for run in runs if run.run_id in memory]
            beside = np.mean([run.sizes[-1]["extra_bytes"] for run in runs])
            cells = [label, str(len(runs)), f"{first:,.0f}", f"{last:,.0f}", f"{last / first:.2f}", f"{beside:,.0f}"]
            cells += [f"{early:.2f}", f"{late:.2f}", f"{late / early:.2f}", f"{max(peaks) / 1e6:.0f}" if peaks else ""]
            lines.append(_row(cells))
        if len(lines) > 4:
            tables.append("\n".join(lines))
    return tables


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _interval(mean: float, half_width: float) -> str:
    return f"{mean:.2f}" if np.isnan(half_width) else f"{mean:.2f} ± {half_width:.2f}"


def _points(difference: Difference | None) -> str:
    if difference is None:
        return ""
    mean, half = 100 * difference.mean, 100 * difference.half_width
    return f"{mean:+.2f}" if np.isnan(half) else f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]"
