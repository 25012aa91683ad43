"""The HTML page as a document: complete, equal to the CSV, escaped, and in need of nothing but itself."""

import base64
import io
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from cl_ext.report import leaderboard, to_html
from cl_ext.report.rows.columns import COLUMNS
from cl_ext.report.rows.outside import read_outside
from cl_ext.report.rows.results import Results
from cl_ext.report.web.figures_inside import WIDTHS, embedded_figures
from cl_ext.report.web.page import html_page, write_page
from cl_ext.report.web.provenance import CELL_FIELDS
from cl_ext.report.web.tables import interval_cells, number_cell, text_cell

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.report.synthetic import SCENARIOS, frame, record, records

FRAME = frame(records())
RESULTS = Results(FRAME, SCENARIOS)
VOID = {"meta", "link", "input", "img", "br"}


class Page(HTMLParser):
    """Elements, tables as lists of rows of (text, value, classes), and the texts of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.tables: dict[str, list[list[tuple[str, str | None, str]]]] = {}
        self.scripts: list[str] = []
        self.text = ""
        self._table, self._cell = "", None
        self.feed(text)
        self.close()
        assert self.open == [], "every element that is opened is closed"

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._table = attributes["id"]
            self.tables[self._table] = []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in {"td", "th"}:
            self._cell = ["", attributes.get("data-value", attributes.get("data-key")), attributes.get("class", "")]
        elif tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in {"td", "th"}:
            self.tables[self._table][-1].append(tuple(self._cell))
            self._cell = None

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif self._cell is not None:
            self._cell[0] += data
        if self.open and self.open[-1] not in {"script", "style"}:
            self.text += data

    def provenance(self) -> dict:
        return json.loads(self.scripts[0])


PAGE = Page(html_page(RESULTS, {"er": ["reads `too` much"]}))


def body(name: str, page: Page = PAGE) -> Iterator[dict[str, tuple[str, str | None, str]]]:
    """A table's rows: column key -> (text, value, classes)."""
    heads, *rows = page.tables[name]
    assert len({head[1] for head in heads}) == len(heads)
    for row in rows:
        yield {str(head[1]): cell for head, cell in zip(heads, row, strict=True)}


def test_the_page_needs_no_other_file_and_forbids_every_request():
    addresses = [
        value for _, attributes in PAGE.elements for name, value in attributes.items() if name in {"src", "href"}
    ]
    assert addresses
    assert all(address.startswith(("#", "data:")) for address in addresses)
    policy = next(a["content"] for tag, a in PAGE.elements if tag == "meta" and a.get("http-equiv"))
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    source = html_page(RESULTS)
    assert "@import" not in source
    assert "url(" not in source


def test_every_link_inside_the_page_has_its_target():
    targets = {attributes["id"] for _, attributes in PAGE.elements if "id" in attributes}
    links = {str(attributes["href"])[1:] for tag, attributes in PAGE.elements if tag == "a"}
    assert links
    assert links <= targets
    assert len(targets) == sum("id" in attributes for _, attributes in PAGE.elements), "ids are unique"


def test_the_numbers_behind_the_cells_are_those_of_the_csv():
    table = pd.read_csv(io.StringIO(RESULTS.table.to_csv(index=False)))
    compared = 0
    for number, (_, board) in enumerate(table.groupby(["study", "stream", "scenario"])):
        rows = list(body(f"board-{number}"))
        assert [row["label"][1] for row in rows] == [label.lower() for label in board["label"]]
        for row, (_, line) in zip(rows, board.iterrows(), strict=True):
            for key, (text, value, _) in row.items():
                if key in line and key != "label":
                    expected = line[key]
                    assert (value == "") == pd.isna(expected), (line["label"], key)
                    assert (text.startswith("—")) == pd.isna(expected), (line["label"], key)
                    assert value == "" or float(value) == pytest.approx(expected, rel=1e-12), (line["label"], key)
                    compared += 1
    assert compared > 1000


def test_how_values_were_tuned_is_a_number_with_a_letter_that_is_spelled_out():
    tuned = FRAME.assign(tuning_protocol=None, tuning_configurations=np.nan, tuning_seeds=None)
    er = tuned["method"].eq("er")
    tuned.loc[er, ["tuning_protocol", "tuning_seeds"]] = ["end-of-stream", "1000"]
    tuned.loc[er, "tuning_configurations"] = 11
    page = Page(to_html(tuned))
    cells = {row["label"][1]: row["tuning_configurations"][:2] for row in body("board-0", page)}
    assert cells["er"] == ("11 (a)", "11.0")
    assert {cells[label] for label in cells if label != "er"} == {("—", "")}
    assert page.text.count("(a) end-of-stream; tuning seeds 1000.") == 2
    assert "tuning_configurations" not in next(body("board-0"))


def test_every_measured_column_with_a_number_is_there_and_only_the_usual_are_shown_at_first():
    (hidden,) = re.findall(r'<style id="hidden-columns">(.*?)</style>', html_page(RESULTS))
    for number, (_, board) in enumerate(RESULTS.table.groupby(["study", "stream", "scenario"])):
        keys = {str(head[1]) for head in PAGE.tables[f"board-{number}"][0]}
        measured = {c.key for c in COLUMNS if c.key in board and board[c.key].notna().any()}
        assert measured | {"label", "n"} <= keys
    assert ".board .c-accuracy_task_aware{display:none}" in hidden
    assert ".c-accuracy{" not in hidden
    assert ".c-n{" not in hidden


def test_the_best_of_a_column_is_marked_as_in_the_leaderboard():
    for number, (_, board) in enumerate(RESULTS.table.groupby(["study", "stream", "scenario"])):
        marked = {row["label"][1] for row in body(f"board-{number}") if "best" in row["accuracy"][2].split()}
        assert marked == {label.lower() for label in board.loc[board["best"], "label"]}
        assert marked


def test_references_failures_gaps_and_reasons_are_told():
    rows = {row["label"][1]: row for row in body("board-1")}  # the task-incremental one
    assert "reference" in rows["naive"]["label"][0]
    assert "reference" not in rows["er"]["label"][0]
    assert "2 timeout" in rows["gem"]["n"][0]
    only_in_one = next(row for row in body("board-0") if row["label"][1] == "packnet")
    assert only_in_one["n"][0] == "not possible"
    assert only_in_one["accuracy"][:2] == ("—", "")
    assert "50% of a|b_c & d" in " ".join(cell[0] for row in body("failed-cells") for cell in row.values())
    assert len(list(body("failed-cells"))) == len(RESULTS.failed)
    assert "reads too much" in PAGE.text  # the footnote, its backticks set as code


def test_a_table_of_one_cell_says_what_is_not_there():
    one = frame([record("er", "class", 0)]).assign(accuracy=0.5)
    page = Page(to_html(one))
    assert page.text.count("None.") == 2  # neither failed nor missing cells
    assert "Across boards" not in page.text
    assert "test accuracies while training" in page.text  # what the anytime measures would need


def test_a_store_where_nothing_finished_has_a_page():
    page = Page(to_html(frame([record("scp", "task", 0)])))
    (row,) = body("board-0", page)
    assert "1 failed of 1" in row["n"][0] or "1 diverged" in row["n"][0]


def test_every_cell_has_its_provenance():
    told = PAGE.provenance()
    rows = [attributes for tag, attributes in PAGE.elements if tag == "tr" and "data-provenance" in attributes]
    cells = RESULTS.cells
    assert len(rows) == len(told["rows"]) == cells.groupby(["scenario", "label"]).ngroups
    at = told["fields"].index("run_id")
    assert tuple(told["fields"]) == CELL_FIELDS
    assert sorted(cell[at] for row in told["rows"] for cell in row["cells"]) == sorted(cells["run_id"])
    table = RESULTS.table
    with_cells = table[table["cells"] > 0]
    entries = [told["rows"][int(attributes["data-provenance"])] for attributes in rows]
    assert [entry["method"] for entry in entries] == list(with_cells["method"])
    assert [len(entry["cells"]) for entry in entries] == list(with_cells["cells"])
    assert {int(attributes["data-provenance"]) for attributes in rows} == set(range(len(told["rows"])))


EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def test_nothing_in_a_store_is_taken_for_markup():
    shown = frame([record("er", "class", seed) for seed in range(2)] + [record("scp", "class", 0)])
    shown["method"] = shown["method"].replace("er", EVIL)
    shown["error"] = shown["error"].where(shown["error"].isna(), EVIL)
    shown["study"] = "<b>study</b>"
    shown["stream"] = '"><script>x</script>'
    shown["environment"] = [{"host": EVIL, "note": "<!--"}] * len(shown)
    page = Page(to_html(shown, {EVIL: [EVIL]}))
    assert [tag for tag, _ in page.elements].count("script") == [tag for tag, _ in PAGE.elements].count("script")
    assert not any(tag == "img" for tag, _ in page.elements)
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert EVIL in page.text
    assert '"><script>x</script>' in page.text
    assert page.provenance()["environments"][0]["host"] == EVIL
    assert "<!--" not in page.scripts[0]


def test_results_of_others_are_marked_and_lead_to_web_addresses_only(tmp_path):
    lines = ["study,stream,scenario,method,n,accuracy,sd,source,url"]
    for name, url in (("good", "https://example.org/paper"), ("bad", "javascript:alert(1)")):
        lines.append(f"digits,split digits,class,{name},5,0.5,0.01,Table 1 of {name},{url}")
    (tmp_path / "others.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    page = Page(html_page(Results(FRAME, SCENARIOS, None, read_outside(tmp_path / "others.csv"))))
    rows = {row["label"][1]: row for row in body("board-0", page)}
    assert "outside: Table 1 of good" in rows["good"]["label"][0]
    assert "outside: Table 1 of bad" in rows["bad"]["label"][0]
    links = {attributes["href"] for tag, attributes in page.elements if tag == "a"}
    assert "https://example.org/paper" in links
    assert not any("javascript" in str(link) for link in links)


def test_the_views_across_boards_and_under_budgets_are_there():
    scores = RESULTS.across[0]
    rows = list(body("across-0"))
    assert [row["label"][1] for row in rows] == [*scores.ranked["label"], *scores.partial["label"]]
    ranked = [float(row["iqm"][1]) for row in rows[: len(scores.ranked)]]
    assert ranked == pytest.approx(list(scores.ranked["iqm"]))
    steps = [row for name in PAGE.tables if name.startswith("budget-") for row in body(name)]
    assert len(steps) == len(RESULTS.budgets)
    assert sorted(float(row["limit"][1]) for row in steps) == sorted(RESULTS.budgets["limit"])
    assert {row["label"][0] for row in steps} == {
        f"digits, {scenario}-incremental (split digits)" for scenario in ("class", "task")
    }


def test_bibtex_stands_in_the_page_and_beside_it(tmp_path):
    page, bib = write_page(RESULTS, tmp_path / "out")
    assert (page.name, bib.name) == ("leaderboard.html", "leaderboard.bib")
    text = Page(page.read_text(encoding="utf-8")).text
    assert bib.read_text(encoding="utf-8").strip() in text
    assert "@inproceedings{lopezpaz2017gradient," in text


def test_the_page_is_the_same_each_time():
    assert html_page(RESULTS) == html_page(Results(FRAME, SCENARIOS))


def test_the_order_is_the_leaderboards():
    table = leaderboard(FRAME, SCENARIOS)
    board = table[table["scenario"].eq("class")]
    assert [row["label"][1] for row in body("board-0")] == list(board["label"])


# ---- cells ---------------------------------------------------------------------------------------------------------


def test_intervals_are_drawn_on_one_scale():
    mean = pd.Series([0.5, 0.7, np.nan, 0.9])
    half = pd.Series([0.1, 0.05, np.nan, np.nan])
    first, second, none, alone = interval_cells(mean, mean - half, mean + half)
    assert first.interval == (20.0, 0.0, 40.0)  # the scale runs from 0.4 to 0.9
    assert second.interval == (60.0, 50.0, 70.0)
    assert (none.text, none.value, none.interval) == ("—", None, None)
    assert alone.interval == (100.0, 100.0, 100.0)  # one seed: a point
    assert first.text == "40.00% to 60.00%"
    assert alone.text == "no interval"
    flat = interval_cells(mean, mean, mean)
    assert flat[0].text == "50.00% to 50.00%"  # an interval of no width is one


def test_what_tiers_rest_on_is_not_said_to_be_a_test():
    note = next(a["title"] for tag, a in PAGE.elements if tag == "th" and a.get("data-key") == "tier")
    assert "exact tests or intervals" in note
    assert "no test tells apart" not in note


def test_equal_values_without_spread_have_a_drawing():
    same = pd.Series([0.5, 0.5])
    assert [cell.interval for cell in interval_cells(same, same, same)] == [(0.0, 0.0, 0.0)] * 2


@pytest.mark.parametrize("nothing", [None, float("nan"), pd.NA, np.nan])
def test_what_is_undefined_is_a_dash_with_nothing_behind_it(nothing):
    for cell in (number_cell(nothing), text_cell(nothing)):
        assert (cell.text, cell.value) == ("—", None)
    assert text_cell("").value is None
    assert (number_cell(0).text, number_cell(0).value) == ("0", 0.0)


# ---- figures -------------------------------------------------------------------------------------------------------


def picture(path: Path, width: int, height: int, noise: bool = False) -> Path:
    random = np.random.RandomState(0)
    pixels = random.randint(0, 256, (height, width, 3)) if noise else np.full((height, width, 3), 200)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def decoded(source: str) -> Image.Image:
    head, _, data = source.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_figures_are_small_pictures_with_a_palette_under_the_head_of_their_board(tmp_path):
    wide, small = picture(tmp_path / "a-class-matrix-2.png", 4000, 1000), picture(tmp_path / "d.png", 300, 200)
    over = picture(tmp_path / "across-all-matrix.png", 300, 200)
    (tmp_path / "a.pdf").write_bytes(b"no picture")
    groups = embedded_figures(
        [wide, tmp_path / "a.pdf", small, over],
        captions={"matrix": "of a board", "across-matrix": "over boards"},
        titles={"a-class": "a, class-incremental"},
    )
    assert [group.title for group in groups] == ["a, class-incremental", "", "across all"]
    figures = [figure for group in groups for figure in group.figures]
    assert [(figure.title, figure.caption, figure.width, figure.height) for figure in figures] == [
        ("matrix 2", "of a board", WIDTHS[0], WIDTHS[0] // 4),
        ("d", "", 300, 200),
        ("matrix", "over boards", 300, 200),
    ]
    for figure in figures:
        image = decoded(figure.source)
        assert image.size == (figure.width, figure.height)
        assert image.mode == "P"
    assert embedded_figures([]) == []


def test_figures_are_drawn_smaller_until_they_fit_and_named_where_they_do_not(tmp_path):
    paths = [picture(tmp_path / f"{name}.png", 1600, 400, noise=True) for name in "abc"]
    whole = sum(len(figure.source) for figure in embedded_figures(paths, 10**9)[0].figures)
    (group,) = embedded_figures(paths, 10**6)
    assert sum(len(figure.source) * 3 / 4 for figure in group.figures) <= 10**6 < whole
    assert group.figures[0].width < 1600
    (group,) = embedded_figures(paths, 1000)
    assert [figure.source for figure in group.figures] == ["", "", ""]
    page = Page(to_html(frame([record("er", "class", 0)]), figures=paths[:1]))
    assert any(tag == "img" and str(a["src"]).startswith("data:image/png") for tag, a in page.elements)
    assert "figures/a.png" in group.figures[0].alt
