"""The leaderboard as files: CSV and Parquet for programs, and all that `cl-ext report` writes of it."""

from importlib.util import find_spec
from pathlib import Path

from cl_ext.report.rows.budgets import tied_text
from cl_ext.report.rows.results import Results
from cl_ext.report.tables.latex import latex_tables
from cl_ext.report.tables.markdown import markdown_page
from cl_ext.report.tables.texts import Footnotes, Scenarios

import pandas as pd

NO_PARQUET = "Parquet files are left out: they need pyarrow, which `pip install cl_ext[parquet]` brings"


def to_csv(frame: pd.DataFrame, methods: Scenarios | None = None) -> str:
    """The leaderboard as CSV: every column of `leaderboard`, at full precision, fractions and plain units."""
    return Results(frame, methods).table.to_csv(index=False)


def to_parquet(frame: pd.DataFrame, path: str | Path, methods: Scenarios | None = None) -> Path:
    """Writes the leaderboard as Parquet: the columns of the CSV with their types.

    Raises:
        ModuleNotFoundError: pyarrow is not installed.
    """
    return _parquet(Results(frame, methods).table, Path(path))


def has_parquet() -> bool:
    """Whether Parquet files can be written here."""
    return find_spec("pyarrow") is not None


def write_leaderboard(
    frame: pd.DataFrame,
    out: str | Path,
    footnotes: Footnotes | None = None,
    methods: Scenarios | None = None,
) -> list[Path]:
    """Writes `leaderboard.md`, `leaderboard.csv`, `leaderboard.tex` and, where pyarrow is there, `leaderboard.parquet`.

    Args:
        frame: the tidy frame, a row a cell.
        out: the folder, made if it is not there.
        footnotes: method -> sentences on its known faults.
        methods: method -> the scenarios it can do (see `leaderboard`).

    Returns:
        The paths written.
    """
    return write_results(Results(frame, methods), out, footnotes)


def write_results(results: Results, out: str | Path, footnotes: Footnotes | None = None) -> list[Path]:
    """As `write_leaderboard`, from results; also `across.csv` and `budgets.csv` where they hold something."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "leaderboard.md": markdown_page(results, footnotes),
        "leaderboard.csv": results.table.to_csv(index=False),
        "leaderboard.tex": latex_tables(results, footnotes),
    }
    across = [each.table.assign(scenario=each.scenario or "all") for each in results.across if len(each.boards) > 1]
    if across:
        texts["across.csv"] = pd.concat(across).to_csv(index=False)
    if len(results.budgets):
        told = results.budgets.assign(tied=[tied_text(tied) for tied in results.budgets["tied"]])
        texts["budgets.csv"] = told.to_csv(index=False)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    written = [folder / name for name in texts]
    return [*written, _parquet(results.table, folder / "leaderboard.parquet")] if has_parquet() else written


def _parquet(table: pd.DataFrame, path: Path) -> Path:
    if not has_parquet():
        raise ModuleNotFoundError(NO_PARQUET)
    table.to_parquet(path, index=False)
    return path
