"""The leaderboard on a terminal: whole numbers at any width, folded names, and what has no room is named."""

import io
import re

from cl_ext.report import terminal_table
from cl_ext.report.rows.results import Results
from cl_ext.report.tables.terminal_fit import fit

import pytest
from rich.console import Console

from tests.report.test_latex import frame

LONG = "ewc (ewc_lambda=0.001, mode=online_and_more)"
CELLS = frame(["naive", "joint", LONG, "漢字漢字漢字漢字漢字漢字"])
TABLE = Results(CELLS).table


def printed(width: int) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(terminal_table(CELLS))
    return console.file.getvalue()


def percents(text: str) -> list[str]:
    return re.findall(r"\d+\.\d\d(?= ±)", text)


def shown(width: int) -> list[list[str]]:
    """The numbers with an interval of each row, which has its method's tier or name on its first line."""
    lines = printed(width).split("─\n")[1].splitlines()
    return [found for line in lines if (found := percents(line))]


@pytest.mark.parametrize("width", range(15, 140))
def test_no_digit_is_cut_at_any_width(width):
    text = printed(width)
    assert "…" not in text
    rows = shown(width)
    assert len(rows) == len(TABLE)
    keys = ["accuracy", "average_incremental_accuracy", "forgetting"]
    for numbers, (_, row) in zip(rows, TABLE.iterrows(), strict=True):
        expected = [f"{100 * row[key]:.2f}" for key in keys]
        assert 1 <= len(numbers) <= 3
        assert numbers == expected[: len(numbers)]
    # and the half widths, which may stand on the next line
    for _, row in TABLE.iterrows():
        assert re.search(rf"(?<![\d.]){100 * row['accuracy_half_width']:.2f}(?!\d)", text)
    left_out = " ".join(text.split()).partition("columns for: ")[2]
    for column, head in (("Avg.", "Avg. inc. ACC"), ("Forgetting", "Forgetting"), ("Extra", "Extra memory")):
        table = text.split("─\n")[0]
        assert (column in table) != (head in left_out), (column, left_out)


def test_a_wide_terminal_shows_all_on_one_line_a_row():
    text = printed(150)
    assert "No room" not in text
    assert LONG in text
    assert len(text.split("─\n")[1].strip().splitlines()) == len(TABLE)
    for _, row in TABLE.iterrows():
        assert f"{100 * row['accuracy']:.2f} ± {100 * row['accuracy_half_width']:.2f}" in text


def test_long_names_are_folded_and_whole():
    text = printed(60)
    names = "".join(line[:24].split("  ")[0] for line in text.split("─\n")[1].splitlines())
    assert LONG.replace(" ", "") in names.replace(" ", "")
    assert names.count("漢字") == 6


def test_a_terminal_too_narrow_for_a_number_says_so():
    text = " ".join(printed(8).split())
    assert "too few for a table" in text
    assert not percents(text)


def test_what_is_left_out_by_hand():
    fields = [
        ("Method", ["abc", "de"]),
        ("Tier", ["1", "2"]),
        ("ACC", ["10.00 ± 1.00", "9.00"]),
        ("Seeds", ["5/5", "5/5"]),
    ]
    assert fit(fields, 33)[1:] == ([6, 4, 12, 5], [])  # 27 and three gaps of 2
    assert fit(fields, 32)[1:] == ([6, 4, 7, 5], [])  # the interval below its mean
    assert fit(fields, 27)[1:] == ([6, 4, 12], ["Seeds"])
    assert fit(fields, 25)[1:] == ([6, 4, 7], ["Seeds"])
    assert fit(fields, 20)[1:] == ([6, 12], ["Tier", "Seeds"])
    assert fit(fields, 15)[1:] == ([6, 7], ["Tier", "Seeds"])
    assert fit(fields, 14) == ([], [], [])
