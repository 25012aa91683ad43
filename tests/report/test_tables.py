"""The leaderboard in Markdown, CSV, LaTeX and on the terminal, held against a small one written by hand."""

import io
import itertools
import re

from cl_ext.report import leaderboard, terminal_table, to_csv, to_latex, to_markdown, write_leaderboard
from cl_ext.report.rows.columns import COLUMNS, columns_for, count, percent, seconds, size
from cl_ext.report.rows.outside import read_outside
from cl_ext.report.rows.results import Results
from cl_ext.report.tables.exports import has_parquet
from cl_ext.report.tables.latex_text import tex
from cl_ext.report.tables.markdown import escaped, markdown_page

import pandas as pd
import pytest
from rich.console import Console

from tests.report import synthetic


def small() -> pd.DataFrame:
    """Two finished methods and a failed one: er has mean .81, s = .02236 and t s / sqrt(5) = 2.776 * .01 = .02776."""
    common = {"study": "my_study", "stream": "", "scenario": "class", "status": "done", "error": None}
    values = {"naive": [0.20, 0.20, 0.20, 0.20, 0.20], "er": [0.80, 0.82, 0.78, 0.84, 0.81]}
    cells = [
        {
            **common,
            "method": name,
            "seed": seed,
            "run_id": f"{name}{seed}",
            "accuracy": value,
            "bwt": -value / 2,
            "cpu_seconds": 10.0 if name == "naive" else 15.0,
            "train_cpu_seconds": 10.0 if name == "naive" else 15.0,
            "extra_bytes": 0 if name == "naive" else 12_300,
        }
        for name, sample in values.items()
        for seed, value in enumerate(sample)
    ]
    broken = {**common, "method": "gem", "status": "failed", "error": "ValueError: a|b & 50%_x\nmore"}
    return pd.DataFrame([*cells, *({**broken, "seed": seed, "run_id": f"gem{seed}"} for seed in range(5))])


FAULTS = {"er": ["Its buffer is 10% short.", "Ties & draws."], "absent": ["Not in the table."]}


def test_markdown():
    text = to_markdown(small(), FAULTS)
    table = text[text.index("| Method") : text.index("*Tiers.*")].strip()
    assert table.splitlines() == [
        "| Method | Tier | ACC [%] | BWT [%] | Cost [x naive] | CPU time [s] | Extra memory | Seeds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| er[^1] | 1 | **81.00 ± 2.78** | **-40.50 ± 1.39** | 1.50 | 15.0 | 12.3 kB | 5 |",
        "| *naive* | — | 20.00 ± 0.00 | -10.00 ± 0.00 | 1.00 | 10.0 | 0 B | 5 |",
        "| gem | — | — | — | — | — | — | 0; 5 failed of 5; n < 5 |",
    ]
    assert "## my_study, class-incremental\n" in text
    assert "[^1]: **er**: Its buffer is 10% short. Ties & draws." in text
    assert "Not in the table" not in text
    assert r"| my_study |  | class | gem | 0 | failed | ValueError: a\|b & 50%_x |" in text
    assert "95 % Student-t interval" in text
    assert "`1/(T-1) * sum_{i<T} (R[T, i] - R[i, i])`" in text
    assert text.rstrip().endswith("## Missing cells\n\nNone.")


def test_csv_is_the_leaderboard_in_fractions():
    read = pd.read_csv(io.StringIO(to_csv(small()))).set_index("method")
    assert read.loc["er", "accuracy"] == pytest.approx(0.81)
    assert read.loc["er", "accuracy_half_width"] == pytest.approx(0.027764, abs=1e-5)
    assert read.loc["gem", "failures"] == "5 failed"
    assert list(read.reset_index()) == sorted(leaderboard(small()), key=list(read.reset_index()).index)


def test_latex():
    text = to_latex(small(), FAULTS)
    assert (
        r"er\textsuperscript{1} & 1 & \textbf{81.00} $\pm$ 2.78 & \textbf{$-$40.50} $\pm$ 1.39 & 1.50 & 12.3 kB & 5/5"
        in text
    )
    assert r"\textit{naive} & --- & 20.00 $\pm$ 0.00" in text
    assert r"gem & --- & --- & --- & --- & --- & 0/5 \\" in text
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(rule) == 1
    assert r"\label{tab:my-study-class}" in text
    assert r"\caption{my\_study, class-incremental: mean over seeds (n = 5) $\pm$" in text
    assert r"5 of 15 cells failed and are left out of the means (gem: 5 failed)" in text
    assert r"\textsuperscript{1}\,Its buffer is 10\% short. Ties \& draws." in text
    # Nothing outside commands is special any more, and braces pair.
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    assert "±" not in text
    assert "—" not in text


def test_latex_escapes():
    assert tex(r"a_b & 50% #1 ~x^2 {c} \d <|>") == (
        r"a\_b \& 50\% \#1 \textasciitilde{}x\textasciicircum{}2 \{c\} \textbackslash{}d "
        r"\textless{}\textbar{}\textgreater{}"
    )


def test_one_seed_has_no_interval():
    frame = small().query("seed == 0")
    assert "| er | **81" not in to_markdown(frame)
    assert "| er | — | **80.00** | **-40.00** | 1.50 | 15.0 | 12.3 kB | 1; n < 5 |" in to_markdown(frame)
    assert "too few seeds" in to_latex(frame)


def test_a_measure_defined_for_some_seeds_says_so():
    frame = small()
    frame.loc[frame["method"].eq("er") & frame["seed"].gt(2), "bwt"] = float("nan")
    assert "(n = 3)" in to_markdown(frame)


def test_files_of_a_large_study(tmp_path):
    frame = synthetic.frame(synthetic.records())
    paths = write_leaderboard(frame, tmp_path / "new" / "folder", {"ewc": ["Slow."]}, synthetic.SCENARIOS)
    assert [path.name for path in paths] == [
        *("leaderboard.md", "leaderboard.csv", "leaderboard.tex", "across.csv", "budgets.csv"),
        *(["leaderboard.parquet"] if has_parquet() else []),
    ]
    markdown = paths[0].read_text(encoding="utf-8")
    assert "3; 2 failed of 5 (2 timeout); n < 5" in markdown
    assert markdown.count("not possible") == 3
    assert markdown.count("| *joint* |") == 2
    assert len(pd.read_csv(paths[1])) == 60
    assert paths[2].read_text(encoding="utf-8").count(r"\begin{table*}") == 2


def test_terminal():
    console = Console(width=110, file=io.StringIO(), color_system=None)
    console.print(terminal_table(synthetic.frame(synthetic.records(seeds=2)), synthetic.SCENARIOS))
    text = console.file.getvalue()
    assert "digits, task-incremental" in text
    assert "not possible" in text
    assert max(map(len, text.splitlines())) <= 110


def test_formats():
    assert (percent(-0.00001), percent(0.5), percent(-0.125)) == ("0.00", "50.00", "-12.50")
    assert (seconds(0.00123), seconds(15), seconds(1234.5)) == ("0.00123", "15.0", "1234")
    assert (size(0), size(999), size(12_300), size(4.5e6), size(2e9)) == ("0 B", "999 B", "12.3 kB", "4.5 MB", "2 GB")
    assert (count(17000), count(1.25)) == ("17,000", "1.2")


def test_columns_are_the_tidy_frames():
    keys = [column.key for column in COLUMNS]
    assert len(set(keys)) == len(keys)
    assert {"accuracy", "accuracy_task_aware", "bwt_task_agnostic", "flops_per_step", "train_cpu_seconds"} <= set(keys)


def test_every_column_says_what_it_needs():
    needs = {column.key: column.needs for column in COLUMNS}
    assert all(needs.values())
    assert "evaluation: 1" in needs["learning_curve_area"]
    assert needs["average_anytime_accuracy"] == needs["windowed_forgetting_task_aware"] != needs["accuracy"]
    assert "joint_incremental" in needs["intransigence"]
    assert "naive" in needs["cost_relative"]


def test_a_column_without_a_number_says_what_it_would_take():
    text = to_markdown(small())
    line = next(line for line in text.splitlines() if line.startswith("*Columns without a number*"))
    assert "AAA, min-ACC, WC-ACC, WF^10: test accuracies while training" in line
    assert "Intransigence: a finished cell of `joint_incremental`" in line
    assert "BWT" not in line
    none = small().drop(columns="train_cpu_seconds")
    assert "Cost: a finished cell of `naive` in the board" in to_markdown(none)


def test_columns_of_a_detail_are_part_of_the_next():
    keys = [[column.key for column in columns_for(detail)] for detail in ("terminal", "paper", "report", "csv")]
    for fewer, more in itertools.pairwise(keys):
        assert set(fewer) < set(more)
    assert keys[-1] == [column.key for column in COLUMNS]


def test_a_label_is_no_html():
    frame = small().assign(method=lambda f: f["method"].replace("er", "<script>alert(1)</script>"))
    text = to_markdown(frame)
    assert r"\<script>alert(1)\</script>" in text
    assert "<script" not in text.replace(r"\<script", "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[x](http://y)", r"\[x\](http://y)"),
        ("*bold* ~~no~~", r"\*bold\* \~\~no\~\~"),
        ("`code` a\\b", r"\`code\` a\\b"),
        ("<b> n < 5", r"\<b> n < 5"),
        ("_a_ b_c", r"\_a\_ b_c"),
        ("joint_incremental _x", "joint_incremental _x"),
        ("$x$ R&D &lt; &#42;", r"\$x\$ R&D \&lt; \&#42;"),
        ("two\n lines", "two lines"),
    ],
)
def test_names_are_shown_in_markdown_as_they_are(text, shown):
    assert escaped(text) == shown


def test_a_name_keeps_its_row_in_markdown():
    name = "[x](y)*`|<b>"
    frame = small().assign(method=lambda f: f["method"].replace("er", name))
    line = next(line for line in to_markdown(frame).splitlines() if "81.00" in line)
    assert line.startswith(r"| \[x\](y)\*\`\|\<b> | 1 | **81.00 ± 2.78** |")
    assert len(re.split(r"(?<!\\)\|", line)) == 10


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://example.org/a_b?c=1#d", "A ([Table 1](https://example.org/a_b?c=1#d))"),
        ("HTTP://e.org/a (b)|c", "A ([Table 1](HTTP://e.org/a%20%28b%29%7Cc))"),
        ("javascript:alert(1)", "A (Table 1)"),
        ("data:text/html;x", "A (Table 1)"),
        ("", "A (Table 1)"),
    ],
)
def test_only_web_addresses_are_links_in_markdown(url, shown, tmp_path):
    path = tmp_path / "others.csv"
    lines = ["study,stream,scenario,method,n,accuracy,sd,source,url", f"my_study,,class,A,5,0.5,0.01,Table 1,{url}"]
    path.write_text("\n".join(lines), encoding="utf-8")
    text = markdown_page(Results(small(), outside=read_outside(path)))
    assert f"| {shown} |" in text
