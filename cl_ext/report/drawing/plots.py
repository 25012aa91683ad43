"""The table of figures, and the door that draws them all."""

import gc
import logging
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from cl_ext.report.drawing import style
from cl_ext.report.drawing.across_plots import ACROSS, lacks, unfit_boards
from cl_ext.report.drawing.doors import BoardFigure
from cl_ext.report.drawing.heatmaps import accuracy_differences, accuracy_matrices
from cl_ext.report.drawing.improvement import improvement_probabilities
from cl_ext.report.drawing.interval_plot import accuracy_intervals
from cl_ext.report.drawing.networks import growth_by_task, parameters_over_the_stream, unit_maps
from cl_ext.report.drawing.over_stream import (
    accuracy_over_the_stream,
    forgetting_by_experience,
    learning_curves,
    memory_over_the_stream,
)
from cl_ext.report.drawing.overlay import learning_together
from cl_ext.report.drawing.plasticity import stability_plasticity
from cl_ext.report.drawing.profiles import performance_profiles
from cl_ext.report.drawing.ranking import rank_over_the_stream
from cl_ext.report.drawing.runs import Board, boards_of
from cl_ext.report.drawing.stability import stability_gaps
from cl_ext.report.drawing.strengths import strength_sensitivity
from cl_ext.report.drawing.tradeoffs import accuracy_against_cost, accuracy_against_memory, accuracy_against_parameters
from cl_ext.report.rows.results import Results

import pandas as pd

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """A figure of each board.

    Attributes:
        draw: draws it.
        caption: what it shows, for the page of captions.
        expected: whether its absence is worth a note; figures of methods that most studies lack are not.
    """

    draw: BoardFigure
    caption: str
    expected: bool = True


FIGURES: dict[str, Kind] = {
    "intervals": Kind(accuracy_intervals, "final accuracy: ticks are seeds, the bar is the interval, from 5 seeds on"),
    "matrix": Kind(
        accuracy_matrices, "mean accuracy on experience j (columns) after i (rows, 0: untrained); grey is undefined"
    ),
    "difference": Kind(accuracy_differences, "the same minus that of `naive`, seed by seed; blue is above it"),
    "stream": Kind(accuracy_over_the_stream, "mean accuracy on the experiences seen so far; grey lines are references"),
    "forgetting": Kind(
        forgetting_by_experience, "max over rows 1..T-1 minus the last row, by experience (Chaudhry et al. 2018)"
    ),
    "learning": Kind(learning_curves, "as `stream`, while training; instants are evenly spaced inside an experience"),
    "together": Kind(
        learning_together, "the same of at most ten methods in one pair of axes; dashed lines end an experience"
    ),
    "gap": Kind(
        stability_gaps,
        "accuracy on earlier experiences while the next is trained: the drop to its lowest and the return from it "
        "(stability gap, De Lange et al. 2023)",
    ),
    "rank": Kind(
        rank_over_the_stream, "rank by accuracy on the experiences seen so far, worked out seed by seed and averaged"
    ),
    "plasticity": Kind(
        stability_plasticity, "backward transfer against learning accuracy; dashed lines join equal final accuracies"
    ),
    "memory": Kind(
        accuracy_against_memory,
        "final accuracy against extra bytes; the line is the Pareto frontier of complete methods, references (hollow) "
        "aside",
    ),
    "cost": Kind(accuracy_against_cost, "the same against CPU seconds of training relative to `naive`"),
    "size": Kind(accuracy_against_parameters, "the same against parameters at the end, where they differ", False),
    "profile": Kind(
        performance_profiles, "share of experiences whose final accuracy is above a threshold (Agarwal et al. 2021)"
    ),
    "improvement": Kind(
        improvement_probabilities,
        "probability that a run of the row is above one of the column (Mann-Whitney); how often, not by how much",
    ),
    "bytes": Kind(memory_over_the_stream, "bytes kept beside the network after each experience", False),
    "sensitivity": Kind(
        strength_sensitivity, "accuracy against a hyper-parameter of which the store holds several values", False
    ),
    "parameters": Kind(
        parameters_over_the_stream, "parameters after each experience, of methods whose network grows or is shared out",
        False,
    ),
    "units": Kind(unit_maps, "which task uses which units of which layer, at the end of the stream, first seed", False),
    "growth": Kind(growth_by_task, "units that were selected, added and split at each task, first seed", False),
}  # fmt: skip
"""The end of a figure's file name -> what draws its pages for a board."""

_HEAD = """\
# Figures

Every figure is drawn from the stored records, once as PDF and once as PNG; names are study, scenario, kind. Lines are
means over the seeds that finished, and a panel says where some are missing; bands and bars are the 95 % Student-t
interval of the mean with five seeds or more; below, they span the least and greatest seed, and `intervals`, where every
seed is seen, has no bars. Accuracies use the scenario's own criterion (task-aware in the task-incremental scenario,
else task-agnostic). Panels are ordered by final accuracy.

"""


class LeftOut(NamedTuple):
    """A figure that is not there, or not of all boards.

    Attributes:
        name: its file name without the ending.
        words: what is left out, and why.
        expected: whether its absence is worth a warning in the log.
    """

    name: str
    words: str
    expected: bool = True


def _draw(board: Board, several: bool, folder: Path, width: style.Width) -> tuple[list[Path], list[LeftOut]]:
    """Draws a board; returns the paths, and the figures that are left out with what they need."""
    study, stream, scenario = board.place
    paths: list[Path] = []
    left_out: list[LeftOut] = []
    for end, kind in FIGURES.items():
        name = style.slug(study, stream if several else "", scenario, end)
        pages = kind.draw(board, width=width)
        for number, page in enumerate(pages, start=1):
            paths += style.save(page, folder / (name if len(pages) == 1 else f"{name}-{number}"))
        if not pages and kind.expected:
            left_out.append(LeftOut(name, f"is left out: it needs {kind.draw.needs}"))
    return paths, left_out


def figures(frame: pd.DataFrame | Results, out: str | Path, width: style.Width = "two", workers: int = 1) -> list[Path]:
    """Draws every figure that the frame allows, each as PDF and PNG, and a page of captions, `figures.md`.

    A figure whose data are missing is left out; `figures.md` and the log say which, and what it needs.

    Args:
        frame: the tidy frame of `cl_ext.study.collect`, or what tables made of it.
        out: the folder, made if it is not there.
        width: "one" or "two" columns of a page.
        workers: how many processes draw, a board at a time. More than one starts fresh interpreters, so that a script
            needs its `if __name__ == "__main__":` then.

    Returns:
        The figures' paths.

    Raises:
        ValueError: there are no workers.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}; it takes a whole number of at least 1")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    results = frame if isinstance(frame, Results) else Results(frame)
    found = boards_of(results)
    streams = {(study, stream) for (study, stream, _) in (board.place for board in found)}
    several = len(streams) > len({study for study, _ in streams})
    draw = partial(_draw, several=several, folder=folder, width=width)
    gc.freeze()  # a large frame is a million objects that stay: else each collection of garbage walks over all of them
    try:
        if min(workers, len(found)) > 1:
            with ProcessPoolExecutor(min(workers, len(found)), get_context("spawn")) as pool:
                drawn = list(pool.map(draw, found))
        else:
            drawn = [draw(board) for board in found]
        over, unfit = _across(results, folder, width)
        paths = [path for own, _ in drawn for path in own] + over
    finally:
        gc.unfreeze()
    left_out = [each for _, own in drawn for each in own] + unfit
    for each in left_out:
        _log.log(logging.WARNING if each.expected else logging.INFO, "figure %s %s", each.name, each.words)
    notes = [f"- `{each.name}` {each.words.removesuffix('.')}." for each in left_out]
    captions = [f"- `{end}`: {kind.caption}." for end, kind in FIGURES.items()]
    captions += [f"- `across-...-{end}`: {caption}." for end, (_, caption) in ACROSS.items()]
    text = _HEAD + "\n".join(captions) + "\n" + ("\n".join(["", "## Left out", "", *notes, ""]) if notes else "")
    (folder / "figures.md").write_text(text, encoding="utf-8")
    return paths


def _across(results: Results, folder: Path, width: style.Width) -> tuple[list[Path], list[LeftOut]]:
    """The figures over boards, of all and of those of each scenario, where there are two or more; as `_draw`."""
    paths: list[Path] = []
    left_out: list[LeftOut] = []
    for across in results.across:
        what = ("across", across.scenario or "all")
        if len(across.boards) < 2 <= len(across.boards) + len(across.left_out):
            left_out.append(LeftOut(f"{style.slug(*what)}-...", f"is left out: it needs {lacks('', across)}"))
        for end, (draw, _) in ACROSS.items() if len(across.boards) > 1 else ():
            with style.house_style():
                pages = draw(across, style.WIDTHS[width])
            name = style.slug(*what, end)
            for number, page in enumerate(pages, start=1):
                paths += style.save(page, folder / (name if len(pages) == 1 else f"{name}-{number}"))
            if not pages:  # few stores have the ten streams that ranks take
                left_out.append(LeftOut(name, f"is left out: it needs {lacks(end, across)}", end != "ranks"))
        if len(across.boards) > 1 and len(across.left_out):
            left_out.append(LeftOut(f"{style.slug(*what)}-...", f"is without {unfit_boards(across)}"))
    return paths, left_out
