"""The whole report of one or several stores: tables, figures, and the leaderboard in the terminal."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from cl_ext.methods import METHODS
from cl_ext.report.drawing.plots import figures as draw_figures
from cl_ext.report.rows.gaps import asked_of
from cl_ext.report.rows.outside import read_outside
from cl_ext.report.rows.results import Results
from cl_ext.report.tables.exports import NO_PARQUET, has_parquet, write_results
from cl_ext.report.tables.terminal import terminal_tables
from cl_ext.report.web.page import write_page
from cl_ext.study.document import StudyError
from cl_ext.study.frame import OBJECTS, collect

from rich.console import Console


def footnotes(methods: Iterable[str]) -> dict[str, list[str]]:
    """What a leaderboard has to say of each method's code: what was mended, which faults are known to stay."""
    notes = {}
    for name in methods:
        if name in METHODS:
            row = METHODS[name]
            lines = [f"mended here: {line}" for line in row.mends] + list(row.faults)
            if lines:
                notes[name] = lines
    return notes


def disagreements(results: Results) -> list[str]:
    """A sentence for each finished cell of which the stores hold different results."""
    return [
        f"{cell['study']}, {cell['scenario']}: stores disagree on {cell['label']}, seed {cell['seed']}: accuracy "
        f"{cell['accuracy']:.4f} counts, {cell['elsewhere']}"
        for _, cell in results.disagreeing.iterrows()
    ]


def write_report(
    stores: Sequence[Path | str],
    out: Path | str,
    *,
    figures: bool = True,
    console: Console | None = None,
    outside: Path | str | None = None,
    workers: int = 1,
) -> list[Path]:
    """Writes the leaderboard's files, `cells.csv` (the tidy frame), `figures/` and the HTML page from stores.

    Args:
        stores: Folders that `cl-ext run` wrote; several are merged.
        out: Where to write.
        figures: Whether to draw.
        console: Where to show the leaderboard, None for nowhere.
        workers: How many processes draw (see `cl_ext.report.drawing.plots.figures`).
        outside: A CSV with results of others (see `cl_ext.report.rows.outside`).

    Returns:
        What was written: the tables and the folder of figures.

    Raises:
        StudyError: The stores hold no readable record.
        OutsideError: The file with results of others does not say what it has to.
    """
    out = Path(out)
    # a cell that no study asks for any more (its values were changed since) is kept in the store, and in no report
    frame = collect(*stores)
    frame = frame if frame.empty else frame[frame["study"] != ""].reset_index(drop=True)
    if frame.empty:
        raise StudyError(f"{', '.join(str(store) for store in stores)}: there is no record to report on")
    asked = asked_of(stores)
    names = {*frame["method"], *(name for study in asked.values() for name in study["methods"])}
    able = {name: METHODS[name].scenarios for name in sorted(names) if name in METHODS}
    results = Results(frame, able, asked, None if outside is None else read_outside(outside))
    written = write_results(results, out, footnotes(able))
    cells = out / "cells.csv"
    frame.drop(columns=[*OBJECTS], errors="ignore").to_csv(cells, index=False)
    written.append(cells)
    if console is not None:
        console.print(terminal_tables(results))
        for line in disagreements(results):
            console.print(line, highlight=False, soft_wrap=True, markup=False)
        if not has_parquet():
            console.print(NO_PARQUET, highlight=False, soft_wrap=True, markup=False)
    drawn: list[Path] = []
    if figures:
        drawn = draw_figures(results, out / "figures", workers=workers)
        if drawn:
            written.append(out / "figures")
    written += write_page(results, out, footnotes(able), drawn)
    return written
