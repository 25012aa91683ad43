"""Markdown, LaTeX, Parquet and CSV show the same numbers, and the LaTeX compiles."""

import io
import re
import shutil
import subprocess

from cl_ext.report import leaderboard, to_csv, to_latex, to_markdown, to_parquet
from cl_ext.report.rows.columns import COLUMNS
from cl_ext.report.tables.exports import has_parquet

import numpy as np
import pandas as pd
import pytest

from tests.report import synthetic

NAMES = ["naive", "joint", "er", "der", "gem", "scp", "ogd", "clser", "local_mas", "packnet"]


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Two boards with failed cells, gaps, a tuned method and awkward names."""
    cells = synthetic.frame(synthetic.records(names=NAMES))
    cells = cells[~(cells["method"].eq("der") & cells["seed"].eq(2))]
    tuned = cells["method"].eq("clser")
    protocol = "grid of ≤ 8 values; 20 % held out → <best>"
    return cells.assign(
        tuning_protocol=np.where(tuned, protocol, None),
        tuning_configurations=np.where(tuned, 8.0, np.nan),
        tuning_seeds=np.where(tuned, "1000, 1001", None),
    )


@pytest.fixture(scope="module")
def rows(frame) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(to_csv(frame, synthetic.SCENARIOS)), keep_default_na=False, na_values=[""])


def expected(row: pd.Series, head: str) -> str:
    """What a table has to show of a CSV row below a head."""
    column = next(column for column in COLUMNS if head in (column.head, column.title))
    if pd.isna(row[column.key]):
        return "—"
    text = column.format(row[column.key])
    if column.interval and pd.notna(row[f"{column.key}_half_width"]):
        text += f" ± {column.format(row[f'{column.key}_half_width'])}"
    return text if row[f"{column.key}_n"] == row["n"] else f"{text} (n = {row[f'{column.key}_n']})"


def tables(text: str, first: str, split: str) -> list[list[list[str]]]:
    """The tables of a page whose head line begins so: lines of cells, the head first."""
    lines = text.splitlines()
    found = []
    for at, line in enumerate(lines):
        if line.startswith(first):
            body = [line]
            for later in lines[at + 1 :]:
                if split not in later and not later.startswith("\\midrule"):
                    break
                body.append(later)
            found.append([[cell.strip() for cell in part.split(split)] for part in body if split in part])
    return found


def test_markdown_shows_the_csv(frame, rows):
    boards = tables(to_markdown(frame, methods=synthetic.SCENARIOS), "| Method | Tier | ACC", " | ")
    assert len(boards) == 2
    checked = 0
    for board, (_, part) in zip(boards, rows.groupby("scenario", sort=False), strict=True):
        heads, _, *lines = board
        assert len(lines) == len(part)
        for line, (_, row) in zip(lines, part.iterrows(), strict=True):
            assert line[0].lstrip("| ").strip("*") == row["label"]
            assert line[1] == ("—" if pd.isna(row["tier"]) else f"{row['tier']:.0f}")
            for head, cell in zip(heads[2:-2], line[2:-2], strict=True):
                assert cell.strip("*") == expected(row, head), (row["label"], head)
                checked += 1
            assert line[-2] == ("8 (a)" if row["label"] == "clser" else "—")
    assert checked > 150


def plain(cell: str) -> str:
    """A LaTeX cell as text."""
    if cell.startswith(r"\shortstack[r]"):  # lines of a head, the last perhaps a unit
        lines = cell.removesuffix(r"\\").strip().removeprefix(r"\shortstack[r]{").removesuffix("}").split(r"\\ ")
        cell = " ".join(line for line in lines if not line.startswith("{["))
    cell = re.sub(r"\\text(bf|it)\{([^}]*)\}|\\underline\{([^}]*)\}", lambda found: found[2] or found[3], cell)
    for tex, sign in (("$\\pm$", "±"), ("$-$", "-"), ("---", "—"), (r"\_", "_")):
        cell = cell.replace(tex, sign)
    return cell.removesuffix(r"\\").strip()


def test_latex_shows_the_csv(frame, rows):
    text = to_latex(frame, methods=synthetic.SCENARIOS, text_width=500)
    boards = tables(text, "Method & Tier & ACC", " & ")
    assert len(boards) == 2
    for board, (_, part) in zip(boards, rows.groupby("scenario", sort=False), strict=True):
        heads, *lines = board
        assert [plain(head) for head in heads[-4:]] == ["Cost", "Extra memory", "Tuning", "Seeds"]
        assert len(lines) == len(part)
        for line, (_, row) in zip(lines, part.iterrows(), strict=True):
            assert plain(line[0]) == row["label"]
            assert plain(line[1]) == ("—" if pd.isna(row["tier"]) else f"{row['tier']:.0f}")
            for head, cell in zip(heads[2:-2], line[2:-2], strict=True):
                assert plain(cell) == expected(row, plain(head)), (row["label"], head)


def test_bold_is_the_best_and_underlined_is_its_tier(frame):
    table = leaderboard(frame, synthetic.SCENARIOS)
    for board, (_, part) in zip(
        tables(to_latex(frame, methods=synthetic.SCENARIOS), "Method & Tier & ACC", " & "),
        table.groupby("scenario", sort=False),
        strict=True,
    ):
        marked = [(r"\textbf" in line[2], r"\underline" in line[2]) for line in board[1:]]
        tied = part["tier"].eq(1).fillna(False) & ~part["best"]
        assert marked == list(zip(part["best"], tied, strict=True))
        assert sum(best for best, _ in marked) == 1


def test_chosen_columns(frame):
    text = to_latex(frame, columns=["steps", "accuracy"])
    assert "Method & Tier & Steps & ACC & Tuning & Seeds" in text
    with pytest.raises(ValueError, match=r"there is no column 'acc'; columns are accuracy, "):
        to_latex(frame, columns=["acc"])


def test_tuning_is_said_below_the_table(frame):
    said = "(a) grid of ≤ 8 values; 20 % held out → \\<best>; tuning seeds 1000, 1001."
    assert said in to_markdown(frame)
    assert r"(a) grid of $\le$ 8 values; 20 \% held out $\to$ \textless{}best\textgreater{}; tuning" in to_latex(frame)
    untuned = frame.drop(columns=["tuning_protocol", "tuning_configurations", "tuning_seeds"])
    assert "Tuning" not in to_markdown(untuned)
    assert "tuning_protocol" not in leaderboard(untuned)


@pytest.mark.skipif(not has_parquet(), reason="pyarrow is not installed")
def test_parquet_is_the_leaderboard(frame, tmp_path):
    path = to_parquet(frame, tmp_path / "leaderboard.parquet", synthetic.SCENARIOS)
    pd.testing.assert_frame_equal(
        pd.read_parquet(path), leaderboard(frame, synthetic.SCENARIOS), check_dtype=False, check_column_type=False
    )


def test_without_pyarrow_parquet_is_one_sentence(frame, tmp_path, monkeypatch):
    monkeypatch.setattr("cl_ext.report.tables.exports.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"need pyarrow, which `pip install cl_ext\[parquet\]` brings"):
        to_parquet(frame, tmp_path / "leaderboard.parquet")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_latex_compiles_and_fits_the_page(frame, tmp_path):
    awkward = frame.assign(method=frame["method"].replace({"er": r"a_b\c<d>~^λ--#{}"}))
    signs = "\N{MULTIPLICATION SIGN}\N{MINUS SIGN}\N{RIGHT SINGLE QUOTATION MARK}\N{EN DASH}"
    faults = {"clser": [f'50 % of "it" ± é ≥ … {signs} 日'], "gem": ["a_b & c"]}
    source = to_latex(awkward, faults)
    (tmp_path / "table.tex").write_text(
        "\n".join(
            [
                r"\documentclass[10pt]{article}",
                r"\usepackage[letterpaper,margin=1in]{geometry}",
                *(line.removeprefix("% Needs ") for line in source.splitlines()[:1]),
                r"\begin{document}",
                source,
                r"\end{document}",
            ]
        ),
        encoding="utf-8",
    )
    ran = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-2000:]
    assert (tmp_path / "table.pdf").stat().st_size > 0
    assert "Overfull" not in ran.stdout
    assert "Float too large" not in ran.stdout
