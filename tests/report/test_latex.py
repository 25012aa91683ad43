"""LaTeX tables compile and fit stock pages whatever a store holds: many rows, long names, letters of any script."""

import re
import shutil
import subprocess
from pathlib import Path

from cl_ext.report import to_latex
from cl_ext.report.tables.latex_fit import TEXT_WIDTH, Part, chosen, floats, points
from cl_ext.report.tables.latex_text import breakable, label_of, name_start, tex

import numpy as np
import pandas as pd
import pytest

AWKWARD = [
    *("naive", "joint", "[x] first", "*starred", "Δ-ER", "漢字", "метод", "かな", "naïve łódź", "x² ≤ ½", "a_b", "R&D"),
    *("50%", "`code`", "br{ace}", "back\\slash", "$1", "a#1", "~^", "p|p", "<b>", "--dash", "two\n\nlines", "☃"),
]
CLASSES = {
    "one column": r"\documentclass{article}",
    "11 pt": r"\documentclass[11pt]{article}",
    "12 pt, A4": r"\documentclass[12pt,a4paper]{article}",
    "two columns": r"\documentclass[twocolumn]{article}",
    "NeurIPS": "\\documentclass{article}\n" + r"\usepackage[textwidth=397pt,textheight=9in]{geometry}",
}


def frame(names: list[str], study: str = "digits", stream: str = "split digits", seeds: int = 6) -> pd.DataFrame:
    """Finished cells with all the columns of a paper, accuracies of up to five digits."""
    random = np.random.RandomState(0)
    return pd.DataFrame(
        {
            "study": study,
            "stream": stream,
            "scenario": "class",
            "method": name,
            "seed": seed,
            "run_id": f"{number}-{seed}",
            "status": "done",
            "error": None,
            "accuracy": 0.2 + 0.7 * number / len(names) + 0.09 * random.rand(),
            "average_incremental_accuracy": 0.5 + 0.4 * random.rand(),
            "forgetting": 0.5 + 0.4 * random.rand(),
            "bwt": -0.5 - 0.4 * random.rand(),
            "train_cpu_seconds": 10.0 + 20 * number,
            "extra_bytes": 123_000 * number,
            "tuning_protocol": "grid of each method's strength" if number % 2 else None,
            "tuning_configurations": 11.0 if number % 2 else np.nan,
            "tuning_seeds": "1000, 1001" if number % 2 else None,
        }
        for number, name in enumerate(names)
        for seed in range(seeds - (number == 3))
    )


def compiled(source: str, folder: Path, head: str = CLASSES["one column"]) -> str:
    """The log of pdflatex on a document that has the packages of the first line and no other."""
    packages = source.splitlines()[0].removeprefix("% Needs ")
    (folder / "table.tex").write_text(
        "\n".join([head, packages, r"\begin{document}", "Text.", source, r"\end{document}"]), encoding="ascii"
    )
    for _ in range(2):  # references are right the second time
        ran = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"],
            cwd=folder,
            capture_output=True,
            check=False,
        )
        log = (folder / "table.log").read_text(encoding="utf-8", errors="replace")
        assert ran.returncode == 0, log[-2000:]
    return log


def faults(log: str) -> list[str]:
    """What does not fit or is not found."""
    return re.findall(r"Overfull.*|.*Float too large.*|.*undefined.*|.*multiply defined.*", log)


needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")


@needs_latex
@pytest.mark.parametrize("head", CLASSES.values(), ids=list(CLASSES))
def test_many_rows_and_long_names_fit_the_page(head, tmp_path):
    variants = [f"ewc (ewc_lambda={10.0**n:.0f}, alpha={n}.25, mode=online_{'x' * n})" for n in range(70)]
    source = to_latex(frame(["naive", "joint", "joint_incremental", *variants]))
    assert source.count(r"\begin{table*}") > 1
    assert source.count(r"\caption") == source.count(r"\label") == 1
    assert source.count("(continued)") == source.count(r"\begin{table*}") - 1
    assert source.count(r" \\") - source.count(r"\toprule") >= 73
    assert faults(compiled(source, tmp_path, head)) == []


@needs_latex
def test_the_paper_s_columns_fit_stock_pages(tmp_path):
    names = ["naive", "joint", "joint_incremental", "generative_replay_avalanche", "derpp", "clser"]
    for place, head in CLASSES.items():
        width = {"NeurIPS": 397.0, "two columns": 469.0}.get(place, TEXT_WIDTH)
        source = to_latex(frame(names), text_width=width)
        assert faults(compiled(source, tmp_path, head)) == []
        # no letter is made smaller, and what has no room is named
        assert "resizebox" not in source
        assert r"\scriptsize" in source
        assert "has no room for BWT" in source
        assert "Forgetting" in source.split(r"\midrule")[0].split(r"\toprule")[1]
    assert "has no room" not in to_latex(frame(names), text_width=550)


@needs_latex
def test_named_columns_that_are_too_wide_are_made_smaller(tmp_path):
    keys = ["accuracy", "average_incremental_accuracy", "forgetting", "bwt", "cost_relative", "extra_bytes", "seconds"]
    cells = frame(["naive", "joint", "joint_incremental", "generative_replay_avalanche"]).assign(seconds=12345.6)
    source = to_latex(cells, columns=keys)
    assert source.startswith("% Needs \\usepackage{booktabs,graphicx}\n")
    assert faults(compiled(source, tmp_path)) == []
    folded = to_latex(cells, columns=[*keys[:3], "cost_relative"])
    assert r"generative\_\allowbreak replay\_\allowbreak avalanche" in folded
    assert "resizebox" not in folded  # long names are folded before letters are made smaller
    assert faults(compiled(folded, tmp_path)) == []
    narrow = to_latex(cells, columns=keys[:1])
    assert narrow.startswith("% Needs \\usepackage{booktabs}\n")
    assert "resizebox" not in narrow


@needs_latex
def test_no_name_of_a_method_study_or_stream_breaks_the_document(tmp_path):
    cells = pd.concat(
        [
            frame(AWKWARD, study="st%ud&y_1", stream="split my 100%.npz"),
            frame(["naive", "joint", "[a] long" + " name" * 20], study="[学習] #2", stream="*data#2.npz\n"),
        ]
    )
    source = to_latex(cells, {"naive": ["[an option?]", "漢 `code`"]})
    assert source.isascii()
    assert re.findall(r"\\label\{(.*)\}", source) == [
        "tab:U-5B66-U-7FD2-2-data-2.npz-class",
        "tab:st-ud-y-1-split-my-100-.npz-class",
    ]
    log = compiled(source, tmp_path)
    assert faults(log) == []
    if shutil.which("pdftotext"):
        page = subprocess.run(["pdftotext", "-layout", "table.pdf", "-"], cwd=tmp_path, capture_output=True, check=True)
        shown = page.stdout.decode()
        for name in ("[x] first", "*starred", "∆-ER", "[U+6F22 U+5B57]", "metod", "kana", "two lines", "[snowman]"):
            assert name in shown, name


def test_names_that_give_one_label_are_told_apart():
    cells = pd.concat([frame(["naive", "er"], study=study) for study in ("a_b", "a-b", "a b")])
    assert re.findall(r"\\label\{tab:(.*)\}", to_latex(cells)) == [
        f"a-b-split-digits-class{end}" for end in ("", "-2", "-3")
    ]


@needs_latex
def test_more_boards_than_latex_holds_back(tmp_path):
    cells = pd.concat([frame(["naive", "er"], study=f"s{number:02}", seeds=2) for number in range(60)])
    source = to_latex(cells)
    assert source.count(r"\clearpage") == 3
    assert faults(compiled(source, tmp_path)) == []


@needs_latex
def test_every_letter_compiles(tmp_path):
    codes = [*range(0x600), *range(0x1D00, 0x3100), *range(0x3100, 0xD800, 37), *range(0xE000, 0x20000, 311)]
    shown = sorted({tex(chr(code)) for code in codes})
    lines = "\n\n".join(rf"{{{text}}} \textit{{{text}}} \textbf{{{text}}}" for text in shown)
    assert "Output written on table.pdf" in compiled("% Needs \\usepackage{booktabs}\n" + lines, tmp_path)


def test_letters_by_hand():
    assert tex("Δ-ER αβ") == r"$\Delta$-ER $\alpha$$\beta$"
    assert tex("naïve Łódź đ") == r"na\"{\i}ve \L{}\'{o}d\'{z} d"
    assert tex("x\u0308 ệ") == r"\"{x} \^{\d{e}}"
    assert tex("Щука метод") == "Shchuka metod"
    assert tex("カナ 한글") == "kana hangeul"
    assert tex("x² H₂ ﬁ \N{FULLWIDTH LATIN CAPITAL LETTER A}") == r"x\textsuperscript{2} H$_{2}$ fi A"
    assert tex("漢字 ☃") == "[U+6F22 U+5B57] [snowman]"
    assert tex("a\n\tb\x07\u200b") == "a  b "
    assert tex("a--b ``") == r"a-{}-b \`{}\`{}"
    assert [label_of(text) for text in ("my 100%", "Δ_ö", "学")] == ["my-100", "Delta-o", "U-5B66"]
    assert [name_start(text) for text in ("[x", "*x", "x[")] == ["{}[x", "{}*x", "x["]
    assert breakable(r"a\_b=1, x") == r"a\_\allowbreak b=\allowbreak 1, x"
    assert breakable("x" * 20) == "x" * 14 + r"\allowbreak " + "x" * 6
    assert breakable(tex("~" + "é^$λ")) == tex("~" + "é^$λ")


def test_widths_are_those_of_the_font():
    # measured with \wd at 7 pt
    for source, width in (
        (r"\textit{joint\_incremental}", 62.72),
        ("97.64 $\\pm$ 2.72", 44.05),
        (r"\textbf{94.37}", 20.66),
    ):
        assert width <= points(source) < 1.1 * width


def test_the_columns_that_fit():
    parts = [Part(title, ["0" * letters], title) for title, letters in (("a", 20), ("b", 30), ("c", 10))]
    names = Part("Method", ["0" * 10])

    def taken(width: float) -> tuple[list[str], bool]:
        found, folded = chosen(parts, [], names, width)
        return [part.title for part in found], folded is not None

    assert taken(300) == (["a", "b", "c"], False)  # 4 pt a digit and gap: 40 + 84 + 124 + 44 = 292 of 294
    assert taken(295) == (["a", "b"], False)
    assert taken(250) == (["a", "c"], False)
    assert taken(100) == (["a"], True)  # the first in any case, beside folded names


def test_rows_are_shared_out_evenly():
    assert [len(rows) for rows in floats([1] * 20, "short")] == [20]
    parts = floats([1] * 100, "x" * 500)
    assert [row for rows in parts for row in rows] == list(range(100))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert len(floats([2] * 100, "x" * 500)) == 2 * len(parts)
    assert floats([], "none") == [range(0)]


def test_the_caption_says_how_values_were_chosen():
    cells = frame(["naive", "er", "joint", "ewc"])
    assert (
        "Tuning: configurations tried, and how: (a) grid of each method's strength; tuning seeds 1000, 1001. "
        "A dash: the study does not say.}" in to_latex(cells)
    )
    silent = cells.drop(columns=["tuning_protocol", "tuning_configurations", "tuning_seeds"])
    assert "Tuning: the study does not say how hyper-parameters were chosen.}" in to_latex(silent)
    long = to_latex(cells.assign(tuning_protocol="very long protocol " * 40))
    assert "as listed below the tables" in long
    assert long.index(r"\end{table*}") < long.index(r"\paragraph{Tuning, digits, class-incremental (split digits).}")


def test_a_caption_names_a_few_failures():
    cells = frame([f"m{number:02}" for number in range(20)])
    cells.loc[cells["seed"].eq(0), "status"] = "failed"
    caption = next(line for line in to_latex(cells).splitlines() if line.startswith(r"\caption"))
    assert "20 of 119 cells failed and are left out of the means (m" in caption
    assert "1 failed, and 14 more rows)" in caption


def test_seeds_are_a_column_where_rows_differ():
    whole = frame(["naive", "er", "joint"])
    assert "Seeds" not in to_latex(whole)
    assert "(n = 6)" in to_latex(whole)
    assert "Seeds" in to_latex(whole[~(whole["method"].eq("er") & whole["seed"].eq(1))])
