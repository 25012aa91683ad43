"""The leaderboard as one HTML file that asks no network and no other file for anything."""

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from cl_ext._version import __version__
from cl_ext.methods import METHODS
from cl_ext.report.rows.cells import BOARD
from cl_ext.report.rows.results import Results
from cl_ext.report.statistics import FEW_SEEDS
from cl_ext.report.tables.texts import (
    DASH,
    DISAGREEING,
    Footnotes,
    Scenarios,
    board_title,
    empty_columns,
    scenario_name,
)
from cl_ext.report.web.bibliography import to_bibtex, write_bibtex
from cl_ext.report.web.boards import board_tables
from cl_ext.report.web.figures_inside import Group, embedded_figures
from cl_ext.report.web.provenance import CELL_FIELDS, provenance
from cl_ext.report.web.tables import Head, WebTable, plain_table
from cl_ext.report.web.views import Section, across_section, budget_section

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

TITLE = "Leaderboard"
PAGE = "leaderboard.html"
_HOW_TO_READ = (
    "Accuracies and what is computed from them are in per cent (differences in percentage points): the mean over seeds "
    f"± half the width of its 95 % Student-t interval. Rows marked “n < {FEW_SEEDS}” have too few seeds for theirs to "
    f"be relied upon. {DASH} is undefined or not recorded, never 0.",
    "Rows of one tier are not ordered; what tiers rest on stands below each table. Green and bold is the best mean of "
    "a column among complete rows, which is no claim. References (in italics), rows with failed or missing cells and "
    "results from elsewhere compete with none.",
    "Cost is in CPU seconds of training relative to naive of the same table. Accuracies use the scenario's own "
    "criterion: task-aware in the task-incremental scenario, else task-agnostic; “Columns” has both.",
    "A click on a column's head sorts by it, undefined values last. The triangle before a method opens where its "
    "numbers come from: values, settings, versions, and every cell with its run id.",
)


@cache
def _templates() -> Environment:
    loader = PackageLoader("cl_ext.report.web", "templates")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["code"] = _code
    return made


def _code(text: str) -> Markup:
    """Text whose words between backticks are set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def to_html(
    frame: pd.DataFrame,
    footnotes: Footnotes | None = None,
    methods: Scenarios | None = None,
    figures: Sequence[Path | str] = (),
) -> str:
    """The leaderboard as an HTML page: sortable, filterable tables, each row's provenance, figures, BibTeX.

    Scripts, styles and figures stand in the page, and its own security policy forbids every request. Without
    JavaScript the tables are there to read, in the leaderboard's order.

    Args:
        frame: the tidy frame, a row a cell.
        footnotes: method -> sentences on its known faults.
        methods: method -> the scenarios it can do (see `leaderboard`).
        figures: files to embed, in this order; those that are no PNG are passed over.

    Returns:
        The page.
    """
    return html_page(Results(frame, methods), footnotes, figures)


def html_page(results: Results, footnotes: Footnotes | None = None, figures: Sequence[Path | str] = ()) -> str:
    """As `to_html`, from results."""
    boards = board_tables(results.table)
    views = [*across_section(results.across), *budget_section(results.budgets)]
    gaps = [_gaps("failed", "Failed cells", results.failed), _gaps("missing", "Missing cells", results.missing)]
    if len(results.disagreeing):
        gaps.append(_gaps("disagreeing", DISAGREEING, results.disagreeing))
    pictures = _pictures([Path(path) for path in figures], results.table)
    shared, rows = provenance(results.cells)
    return (
        _templates()
        .get_template(PAGE)
        .render(
            title=TITLE,
            version=__version__,
            summary=_summary(results.cells),
            studies=list(dict.fromkeys(board.study for board in boards)),
            scenarios=list(dict.fromkeys(board.scenario for board in boards)),
            columns=_columns(boards),
            how_to_read=_HOW_TO_READ,
            boards=boards,
            views=views,
            figures=pictures,
            gaps=gaps,
            counts={"failed": len(results.failed), "missing": len(results.missing)},
            empty=[(column.title, column.needs) for column in empty_columns(results.table, "report")],
            faults=[(method, lines) for method, lines in (footnotes or {}).items() if lines],
            bibtex=to_bibtex(results.frame),
            numbers={place: number for number, place in enumerate(rows)},
            provenance=_json(shared | {"fields": CELL_FIELDS, "rows": [_told(row) for row in rows.values()]}),
        )
    )


def write_page(
    results: Results, out: Path | str, footnotes: Footnotes | None = None, figures: Sequence[Path | str] = ()
) -> list[Path]:
    """Writes `leaderboard.html` (see `to_html`) and `leaderboard.bib` into a folder, made if it is not there.

    Returns:
        The paths written.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PAGE).write_text(html_page(results, footnotes, figures), encoding="utf-8")
    return [folder / PAGE, write_bibtex(results.frame, folder)]


def _gaps(name: str, title: str, cells: pd.DataFrame) -> Section:
    if cells.empty:
        return Section(name, title, ["None."], [])
    listed = plain_table(f"{name}-cells", "", cells.rename(columns={"label": "method"}))
    return Section(name, title, [], [listed])


def _pictures(paths: Sequence[Path], table: pd.DataFrame) -> list[Group]:
    if not paths:
        return []
    # what draws figures is slow to import, and not needed for a page without them
    from cl_ext.report.drawing.plots import ACROSS, FIGURES
    from cl_ext.report.drawing.style import slug

    captions = {end: kind.caption for end, kind in FIGURES.items()}
    captions |= {f"across-{end}": caption for end, (_, caption) in ACROSS.items()}
    titles = {"across-all": "Across all boards"}
    for place, board in table.groupby(BOARD):
        study, stream, scenario = map(str, place)
        titles[f"across-{scenario}"] = f"Across {scenario_name(scenario)} boards"
        titles |= dict.fromkeys((slug(study, scenario), slug(study, stream, scenario)), board_title(board))
    return embedded_figures(paths, captions=captions, titles=titles)


def _columns(boards: Sequence[WebTable]) -> list[Head]:
    """Every column that any board has, in order."""
    columns: dict[str, Head] = {}
    for board in boards:
        for head in board.heads:
            columns.setdefault(head.key, head)
    return list(columns.values())


def _summary(cells: pd.DataFrame) -> str:
    counted = [
        (cells["method"].nunique(), "method"),
        (len(cells[BOARD].drop_duplicates()), "board"),
        (cells["seed"].nunique(), "seed"),
    ]
    counts = ", ".join(f"{number} {word}{'' if number == 1 else 's'}" for number, word in counted)
    done = int(cells["status"].eq("done").sum())
    return f"{counts}; {done} of {len(cells)} cells done. Written by cl_ext {__version__}."


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """A row's provenance with what the table of methods says of its method."""
    about: list[tuple[str, str]] = []
    name = row["method"]
    if name in METHODS.own_names:
        method = METHODS[name]
        about = [("Method", f"{name} ({method.origin}, revision {row['revision'] or method.revision}): {method.paper}")]
        about += [("Stores", method.stores)]
        about += [("Mended", line) for line in method.mends] + [("Known fault", line) for line in method.faults]
    return row | {"about": about}


def _json(value: Any) -> Markup:
    """JSON that may stand in a script element: nothing in it can end the element or begin a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=str)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
