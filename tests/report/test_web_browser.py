"""The HTML page in a headless Chromium: no request, sorting, filters, provenance; skipped where there is none.

`pip install -e .[browser]` brings the driver, the system's package manager Chromium (CHROMIUM names another one).
"""

import os
import re
import shutil
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from cl_ext.report.pages import write_report

import pandas as pd
import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[browser]")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the path; CHROMIUM may name one")
SCRIPT = Path(__file__).parents[2] / "scripts" / "synthetic_store.py"
EVIL = "<img src=x onerror=\"document.title='taken'\">"


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """The report on a made-up store with failed, diverged, missing and half-written cells."""
    found = spec_from_file_location("synthetic_store", SCRIPT)
    assert found is not None
    assert found.loader is not None
    module = module_from_spec(found)
    found.loader.exec_module(module)
    store = tmp_path_factory.mktemp("web") / "store"
    gaps = {"failed": 1, "diverged": 1, "missing": 1, "half_written": 1}
    module.write(store, list(module.studies(2, 12, 5, 2)), gaps, 2)
    write_report([store], store, figures=False)
    return store


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


class Opened:
    """A page in a context without a network, with all that it asked for and complained of."""

    def __init__(self, browser, path: Path, **options) -> None:
        self.context = browser.new_context(offline=True, **options)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(path.as_uri())

    def labels(self, board: str) -> list[str]:
        """The names of a board's rows that are shown, from top to bottom."""
        script = "rows => rows.filter(row => !row.hidden).map(row => row.querySelector('.name').textContent)"
        return self.page.locator(f"#{board} > tbody > tr.row").evaluate_all(script)

    def press(self, selector: str) -> None:
        self.page.locator(selector).evaluate("element => element.click()")


@pytest.fixture
def opened(browser, report) -> Iterator[Opened]:
    page = Opened(browser, report / "leaderboard.html", viewport={"width": 1300, "height": 900})
    yield page
    page.context.close()
    assert [url for url in page.requests if not url.startswith("data:")] == [(report / "leaderboard.html").as_uri()]
    assert page.complaints == []


@pytest.fixture(scope="module")
def boards(report) -> list[pd.DataFrame]:
    """The boards of the CSV, in the page's order."""
    table = pd.read_csv(report / "leaderboard.csv")
    return [board for _, board in table.groupby(["study", "stream", "scenario"])]


def test_the_page_asks_for_nothing_and_complains_of_nothing(opened, boards):
    opened.page.locator("#cite").scroll_into_view_if_needed()
    assert opened.page.locator(".board table").count() == len(boards) == 2
    for number, board in enumerate(boards):
        assert opened.labels(f"board-{number}") == list(board["label"])


def test_a_request_would_be_refused_by_the_page_itself(browser, report):
    """The control: the policy stops what a script tries, with the network there or not."""
    opened = Opened(browser, report / "leaderboard.html")
    script = "fetch('http://127.0.0.1:9/').then(() => 'fetched', error => String(error))"
    assert "Failed to fetch" in opened.page.evaluate(script)
    assert any("Content Security Policy" in text for text in opened.complaints)
    opened.context.close()


SORT_ALL = """table => [...table.tHead.rows[0].cells].flatMap(head => [1, 2].map(() => {
  head.firstElementChild.click();
  const shown = [...table.tBodies[0].rows].map(row => row.querySelector('.name').textContent);
  const sorted = [...table.tHead.rows[0].cells].filter(each => each.ariaSort !== 'none').length;
  return [head.dataset.key, head.dataset.better ?? '', head.ariaSort, sorted, shown];
}))"""


def test_each_column_sorts_by_the_number_in_the_csv(opened, boards):
    compared = 0
    for number, board in enumerate(boards):
        values = board.set_index("label")
        clicks = opened.page.locator(f"#board-{number}").evaluate(SORT_ALL)
        for turn, (key, better, order, sorted_heads, labels) in enumerate(clicks):
            behind = values["accuracy"] if key == "interval" else values.get(key)
            behind = pd.Series(values.index, values.index) if key == "label" else behind
            assert behind is not None, f"the CSV has no column {key}"
            descending = (better == "higher") == (turn % 2 == 0)  # the better end first, at the second click last
            assert order == ("descending" if descending else "ascending"), key
            assert sorted_heads == 1
            shown = behind[labels]
            defined = shown.dropna()
            assert shown.notna().tolist() == [True] * len(defined) + [False] * (len(shown) - len(defined)), key
            assert defined.is_monotonic_decreasing if descending else defined.is_monotonic_increasing, key
            assert sorted(labels) == sorted(board["label"])
            compared += len(defined.unique()) > 1
    assert compared > 60


def test_a_head_is_a_button_that_the_keyboard_reaches(opened):
    heads = opened.page.locator("#board-0 > thead th")
    at = heads.evaluate_all("heads => heads.findIndex(head => head.dataset.key === 'forgetting')")
    button = heads.nth(at).get_by_role("button")
    button.focus()
    opened.page.keyboard.press("Enter")
    assert heads.nth(at).get_attribute("aria-sort") == "ascending"
    opened.page.keyboard.press("Space")
    assert heads.nth(at).get_attribute("aria-sort") == "descending"


def test_filters_by_name_study_scenario_and_references(opened, boards):
    every = [label for board in boards for label in board["label"]]

    def shown() -> list[str]:
        return [
            label
            for number in range(len(boards))
            if opened.page.locator(f"#board-{number}").is_visible()
            for label in opened.labels(f"board-{number}")
        ]

    def count() -> str:
        return opened.page.locator("#count").inner_text()

    opened.page.locator("#filter").fill("EWC ava")
    assert set(shown()) == {label for label in every if "ewc" in label and "ava" in label}
    assert len(set(shown())) == 2
    assert count() == f"4 of {len(every)} rows"
    opened.page.locator("#filter").fill("")
    assert shown() == every

    opened.page.locator("#hide-references").check()
    kept = [label for board in boards for label in board.loc[~board["reference"], "label"]]
    assert shown() == kept
    assert 0 < len(kept) < len(every)
    opened.page.locator("#hide-references").uncheck()

    opened.page.locator("#study").select_option(boards[1]["study"].iloc[0])
    assert shown() == list(boards[1]["label"])
    opened.page.locator("#study").select_option("all")
    opened.page.locator("#scenario").select_option("class-incremental")
    assert shown() == list(boards[0]["label"] if boards[0]["scenario"].iloc[0] == "class" else boards[1]["label"])
    opened.page.locator("#scenario").select_option("all")
    assert shown() == every


def test_columns_are_chosen(opened):
    column = "#board-0 > thead th.c-accuracy_task_aware"
    assert not opened.page.locator(column).is_visible()
    opened.page.locator("#chooser summary").click()
    box = opened.page.locator("#chooser input[value='accuracy_task_aware']")
    box.check()
    assert opened.page.locator(column).is_visible()
    assert opened.page.locator("#board-0 > tbody td.c-accuracy_task_aware").first.is_visible()
    box.uncheck()
    assert not opened.page.locator(column).is_visible()


def test_a_row_opens_where_its_numbers_come_from_and_keeps_it_behind_itself(opened, report):
    cells = pd.read_csv(report / "cells.csv")
    name = "ewc_avalanche"
    study = opened.page.locator(".board").first.get_attribute("data-study")
    mine = cells[cells["method"].eq(name) & cells["study"].eq(study)]
    button = opened.page.locator("#board-0").get_by_role("button", name=f"where {name} comes from", exact=True)
    assert button.get_attribute("aria-expanded") == "false"
    button.click()
    assert button.get_attribute("aria-expanded") == "true"
    details = opened.page.locator("#board-0 tr.provenance")
    text = details.inner_text()
    assert len(mine) >= 4
    assert set(mine["run_id"]) == set(re.findall(r"\b[0-9a-f]{20}\b", text))
    for word in ("torch = ", "avalanche-lib = ", "cl_ext = ", "commit = ", "device = cpu", "batch_size = ", "made up"):
        assert word in text
    opened.press("#board-0 > thead th.first button")
    behind = "row => row.previousElementSibling.querySelector('.name').textContent"
    assert details.evaluate(behind) == name
    opened.page.locator("#filter").fill("no such method")
    assert not details.is_visible()
    opened.page.locator("#filter").fill("")
    button.click()
    assert details.count() == 0


def test_failed_and_missing_cells_are_listed_and_told_in_their_rows(opened):
    failed = opened.page.locator("#failed-cells tbody tr")
    assert failed.count() == 2
    assert {"failed", "diverged"} == set(opened.page.locator("#failed-cells td.c-status").all_inner_texts())
    assert opened.page.locator("#missing-cells tbody tr").count() == 2  # one never written, one half written
    names = opened.page.locator("#failed-cells td.c-method").all_inner_texts()
    for name in names:
        rows = opened.page.locator("#boards tr.row").filter(has=opened.page.get_by_text(name, exact=True))
        assert any("failed of 5" in text for text in rows.locator("td.c-n").all_inner_texts())


def test_bibtex_is_copied(opened, report):
    opened.page.locator("#copy").click()
    opened.page.locator("#copy", has_text="Copied").wait_for(timeout=5000)
    selected = opened.page.evaluate("getSelection().toString()")
    assert selected.strip() == (report / "leaderboard.bib").read_text(encoding="utf-8").strip()


def test_without_javascript_the_tables_are_there(browser, report, boards):
    opened = Opened(browser, report / "leaderboard.html", java_script_enabled=False)
    assert not opened.page.locator("#toolbar").is_visible()
    assert opened.page.locator("#board-0 tbody tr").count() == len(boards[0])
    assert opened.page.locator("#board-0 tbody tr").last.is_visible()
    assert opened.page.locator("button:enabled:visible").count() == 0
    opened.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_the_page_in_both_schemes(browser, report, scheme):
    """Contrast by WCAG 2: at least 4.5 to 1 for what is read, in the colours that the browser computed."""
    opened = Opened(browser, report / "leaderboard.html", color_scheme=scheme)
    script = """selector => {
      const bare = (text) => text.match(/[\\d.]+/g).map(Number);
      const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
      const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
      let element = document.querySelector(selector);
      const front = light(bare(getComputedStyle(element).color));
      let back = getComputedStyle(element).backgroundColor;
      while (element && bare(back)[3] === 0) {
        element = element.parentElement;
        back = getComputedStyle(element ?? document.documentElement).backgroundColor;
      }
      const behind = light(bare(back));
      return [(Math.max(front, behind) + 0.05) / (Math.min(front, behind) + 0.05), bare(back)[0]];
    }"""
    for selector in (
        "h1",
        ".summary",
        "nav a",
        "td.c-accuracy",
        "td.best",
        "td small",
        ".tag",
        ".reference td",
        ".note",
        "pre",
    ):
        contrast, red = opened.page.evaluate(script, selector)
        assert contrast >= 4.5, (selector, contrast)
        assert (red > 128) == (scheme == "light")
    opened.context.close()


def test_the_page_is_as_wide_as_the_window(opened):
    for width in (320, 400, 800, 1600):
        opened.page.set_viewport_size({"width": width, "height": 800})
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width


def test_on_paper_the_tables_are_whole_and_the_tools_are_gone(browser, report):
    opened = Opened(browser, report / "leaderboard.html", viewport={"width": 1000, "height": 700})
    box = opened.page.locator("#board-0").locator("..")
    assert box.evaluate("element => getComputedStyle(element).maxHeight") != "none"
    opened.page.emulate_media(media="print")
    assert not opened.page.locator("#toolbar").is_visible()
    assert not opened.page.locator("button.open").first.is_visible()
    assert box.evaluate("element => getComputedStyle(element).maxHeight") == "none"
    opened.context.close()


def test_a_label_that_looks_like_markup_is_a_label(browser, tmp_path):
    from cl_ext.report.rows.results import Results
    from cl_ext.report.web.page import write_page

    from tests.report.synthetic import frame, record

    shown = frame([record("er", "class", seed) for seed in range(2)])
    shown["method"], shown["run_id"] = EVIL, [EVIL, f"2{EVIL}"]
    page, _ = write_page(Results(shown), tmp_path)
    opened = Opened(browser, page)
    assert opened.labels("board-0") == [EVIL]
    opened.page.locator("tr.row").first.get_by_role("button").click()
    assert EVIL in opened.page.locator("tr.provenance").inner_text()
    assert opened.page.title() == "Leaderboard"
    assert opened.page.locator("img").count() == 0
    assert opened.complaints == []
    opened.context.close()
