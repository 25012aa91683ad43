"""Results of others: read from a CSV, refused with the place of the mistake, shown marked and compared with nothing."""

import math

from cl_ext.report import leaderboard, read_outside, to_markdown
from cl_ext.report.rows.outside import OutsideError
from cl_ext.report.rows.results import Results
from cl_ext.report.tables.latex import latex_tables
from cl_ext.report.tables.markdown import markdown_page

import numpy as np
import pandas as pd
import pytest

from tests.report.synthetic import cells

HEAD = "study,stream,scenario,method,seed,n,accuracy,sd,source,url"
MEAN = "s,d,class,ER (theirs),,10,0.95,0.01,A & B 2020 Table 1,https://example.org/a_b"


def own() -> pd.DataFrame:
    steps = 0.01 * np.arange(5)
    return cells(naive=0.2 + steps, er=0.5 + steps, lwf=0.4 + steps).assign(bwt=-0.1)


@pytest.fixture
def write(tmp_path):
    def _write(*lines: str, head: str = HEAD):
        path = tmp_path / "outside.csv"
        path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
        return path

    return _write


def test_a_mean(write):
    table = leaderboard(own(), outside=read_outside(write(MEAN)))
    row = table.set_index("label").loc["ER (theirs)"]
    assert row[["accuracy", "accuracy_sd", "accuracy_n", "n", "outside"]].tolist() == [
        *(0.95, 0.01, 10, 10, "A & B 2020 Table 1")
    ]
    # t_{0.975, 9} = 2.262
    assert row["accuracy_half_width"] == pytest.approx(2.262 * 0.01 / math.sqrt(10), rel=1e-3)
    assert math.isnan(row["bwt"])
    # marked last, though its accuracy is the highest; never best, no tier, no test
    assert table["label"].tolist() == ["er", "lwf", "naive", "ER (theirs)"]
    assert not row["best"]
    assert pd.isna(row["tier"])
    assert row["from_naive_verdict"] == row["from_best_verdict"] == ""


def test_own_rows_are_as_without_it(write):
    with_it = leaderboard(own(), outside=read_outside(write(MEAN)))
    without = leaderboard(own())
    mine = with_it[with_it["outside"].eq("")]
    pd.testing.assert_frame_equal(mine[list(without)], without, check_dtype=False)


def test_seeds_are_summed_up(write):
    path = write(*(f"s,d,class,GEM,{seed},,{0.6 + 0.1 * seed},,P,," for seed in range(3)), head=HEAD + ",bwt")
    row = leaderboard(own(), outside=read_outside(path)).set_index("label").loc["GEM"]
    assert row["accuracy"] == pytest.approx(0.7)
    assert row["accuracy_sd"] == pytest.approx(0.1)
    assert row[["n", "few_seeds", "bwt_n"]].tolist() == [3, True, 0]


def test_a_mean_without_spread_has_no_interval(write):
    table = leaderboard(own(), outside=read_outside(write("s,d,class,GEM,,3,0.6,,P,")))
    assert math.isnan(table.set_index("label").loc["GEM", "accuracy_half_width"])
    assert "| GEM (P) | — | 60.00 | — | 3; n < 5; outside |" in to_page(own(), write("s,d,class,GEM,,3,0.6,,P,"))


def to_page(frame: pd.DataFrame, path) -> str:
    return markdown_page(Results(frame, outside=read_outside(path)))


def test_pages_mark_it_and_link_its_source(write):
    text = to_page(own(), write(MEAN))
    shown = "| ER (theirs) ([A & B 2020 Table 1](https://example.org/a_b)) | — | 95.00 ± 0.72 | — | 10; outside |"
    assert shown in text
    assert "**95.00" not in text
    tex = latex_tables(Results(own(), outside=read_outside(write(MEAN))))
    assert r"ER (theirs) (A \& B 2020 Table 1) & --- & 95.00 $\pm$ 0.72 & --- & 10 \\" in tex
    assert "results of others" in tex
    assert "outside |" not in to_markdown(own())


def test_it_takes_no_part_in_budgets_and_across_boards(write):
    cells = own().assign(extra_bytes=10, train_cpu_seconds=1.0)
    joint = cells[cells["method"].eq("er")].assign(method="joint", accuracy=0.99)
    cells = pd.concat([cells, joint])
    path = write("s,d,class,Cheap,,10,0.97,0.01,P,,1", head=HEAD + ",extra_bytes")
    results = Results(cells, outside=read_outside(path))
    assert "Cheap" in set(results.table["label"])
    assert "Cheap" not in set(results.budgets["label"])
    assert "Cheap" not in set(results.across[0].table["label"])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("s,d,class,GEM,,3,81.2,,P,", r"line 2, column accuracy: it is '81.2'; it takes a fraction in \[0, 1\]"),
        ("s,d,class,GEM,,3,,,P,", r"line 2, column accuracy: it is empty"),
        ("s,d,class,GEM,,3,high,,P,", r"line 2, column accuracy: it is 'high'"),
        ("s,d,class,GEM,,3,nan,,P,", r"line 2, column accuracy: it is 'nan'"),
        ("s,d,class,GEM,,2.5,0.8,,P,", r"line 2, column n: it is '2.5'; it takes a whole number of at least 1"),
        ("s,d,class,GEM,,0,0.8,,P,", r"line 2, column n: it is '0'"),
        ("s,d,class,GEM,,3,0.8,-0.1,P,", r"line 2, column sd: it is '-0.1'"),
        ("s,d,class,GEM,,,0.8,,P,", r"line 2: it takes either a seed or n"),
        ("s,d,class,GEM,1,3,0.8,,P,", r"line 2: it takes either a seed or n"),
        ("s,d,class,GEM,1,,0.8,0.1,P,", r"line 2, column sd: one run has none"),
        ("s,d,class,GEM,,3,0.8,,,", r"line 2, column source: it is empty; it takes text"),
        ("s,d,class,,,3,0.8,,P,", r"line 2, column method: it is empty"),
        ("s,d,class,GEM,,3,0.8", r"line 2: it has not as many fields as line 1"),
        ("s,d,class,GEM,,3,0.8,,P,,,", r"line 2: it has not as many fields as line 1"),
        (MEAN.replace("0.95", "1.95"), r"line 2, column accuracy"),
    ],
)
def test_a_mistake_is_named_with_its_place(write, line, said):
    with pytest.raises(OutsideError, match=said) as error:
        read_outside(write(line))
    assert "outside.csv" in str(error.value)


def test_the_line_is_the_files_own(write):
    with pytest.raises(OutsideError, match="line 3, column accuracy"):
        read_outside(write(MEAN, "s,d,class,GEM,,3,7,,P,"))


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("study,method,accuracy", "line 1: the columns stream, scenario, source are missing"),
        (HEAD + ",acc", "line 1: unknown column 'acc'; columns can be study, stream"),
        ("", "line 1: the columns study, stream"),
        (HEAD + ",accuracy", "line 1: the column 'accuracy' stands there twice"),
        (HEAD, "it has a head line and no results"),
    ],
)
def test_the_head_is_checked(write, head, said):
    with pytest.raises(OutsideError, match=said):
        read_outside(write(head=head))


def test_blanks_behind_commas_and_line_breaks_in_quotes_are_read(write):
    plain = read_outside(write(MEAN))
    spaced = read_outside(write(MEAN.replace(",", ", "), head=HEAD.replace(",", " , ")))
    pd.testing.assert_frame_equal(plain, spaced)
    broken = read_outside(write('s,d,class,"GEM\nagain",,3,0.5,,P,', "s,d,class,ER,1,,0.5,,P,"))
    assert broken["method"].tolist() == ["GEM\nagain", "ER"]
    assert broken["line"].tolist() == ["3", "4"]


def test_no_file(tmp_path):
    with pytest.raises(OutsideError, match=r"nowhere\.csv: can't be read"):
        read_outside(tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            ["s,d,task,GEM,,3,0.8,,P,"],
            "line 2: there is no table of study, stream, scenario s, d, task; there are: s, d",
        ),
        (["s,d,class,GEM,1,,0.8,,P,"] * 2, "'GEM' of 'P' has a seed twice"),
        (["s,d,class,GEM,1,,0.8,,P,", "s,d,class,GEM,,3,0.8,,P,"], "seeds beside a mean"),
        (["s,d,class,GEM,,3,0.8,,P,"] * 2, "has 2 means"),
    ],
)
def test_what_does_not_fit_the_board_is_refused(write, lines, said):
    with pytest.raises(OutsideError, match=said):
        leaderboard(own(), outside=read_outside(write(*lines)))
