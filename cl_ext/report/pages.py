"""The whole report of one or several stores: tables, figures, and the leaderboard in the terminal."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from cl_ext.methods import METHODS
from cl_ext.report.plots import figures as draw_figures
from cl_ext.report.tables import terminal_table, write_leaderboard
from cl_ext.study.document import StudyError
from cl_ext.study.frame import collect, load_records

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


def write_report(
    stores: Sequence[Path | str], out: Path | str, *, figures: bool = True, console: Console | None = None
) -> list[Path]:
    """Writes `leaderboard.{md,csv,tex}`, `cells.csv` (the tidy frame) and `figures/` from the records of stores.

    Args:
        stores: Folders that `cl-ext run` wrote; several are merged.
        out: Where to write.
        figures: Whether to draw.
        console: Where to show the leaderboard, None for nowhere.

    Returns:
        What was written: the tables and the folder of figures.

    Raises:
        StudyError: The stores hold no readable record.
    """
    out = Path(out)
    # a cell that no study asks for any more (its values were changed since) is kept in the store, and in no report
    frame = collect(*stores)
    frame = frame if frame.empty else frame[frame["study"] != ""].reset_index(drop=True)
    if frame.empty:
        raise StudyError(f"{', '.join(str(store) for store in stores)}: there is no record to report on")
    names = frame["method"].unique()
    able = {name: METHODS[name].scenarios for name in names if name in METHODS}
    written = write_leaderboard(frame, out, footnotes(names), able)
    cells = out / "cells.csv"
    frame.to_csv(cells, index=False)
    written.append(cells)
    if console is not None:
        console.print(terminal_table(frame, able))
    if figures:
        records = [record for record in load_records(*stores) if record["study"]]
        drawn = draw_figures(records, frame, out / "figures")
        if drawn:
            written.append(out / "figures")
    return written
