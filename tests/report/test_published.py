"""Published numbers beside ours: statuses in closed form, mistakes are said, nothing goes out of date in silence."""

import dataclasses
import importlib.util
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cl_ext.methods import METHODS
from cl_ext.report.rows.measured import Measurement, append, latest, read_measured
from cl_ext.report.rows.measuring import cell_of, measure
from cl_ext.report.rows.published import Published, short_citation
from cl_ext.report.rows.published_reader import read_published
from cl_ext.report.rows.reproduction import compare_published, problems, status
from cl_ext.report.statistics import Interval, half_width, welch
from cl_ext.report.tables.published import reproduction_page
from cl_ext.study import Store, Study, StudyError, collect, run

import numpy as np
import pytest
from scipy import stats

from tests.study.helpers import TINY, write

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "benchmarks" / "reproduction"
SCRIPT = ROOT / "scripts" / "published.py"
DATA = Path(os.environ.get("CL_EXT_DATA", ROOT.parent / "shared" / "data"))
FILE = """\
settings:
  tiny: {says: A tiny setting., study: tiny.yaml, stream: split digits, scenarios: [class], margin: 1, given: before}
  none: {says: Another., study: null, stream: split digits, scenarios: [task, class], why: no study yet}
numbers:
  - {setting: tiny, method: naive, paper: hsu2018re, where: table, read: read, value: 20, spread: 0.5, kind: sd, n: 10}
  - {setting: tiny, method: joint, paper: "Somebody 2020", where: table 2, read: memory, value: 90}
  - {setting: none, method: er, paper: buzzega2020dark, where: text, read: code, value: {task: 99.0, class: 80.0}}
without:
  dualnet: not checked
"""


def published(folder: Path, text: str = FILE) -> Published:
    write(folder)
    (folder / "published.yaml").write_text(text)
    return read_published(folder / "published.yaml")


def line(mean: float = 0.2, half: float = 0.005, n: int = 5, row: str = "naive", cell: str = "") -> Measurement:
    return Measurement(
        "2026-11-22", "abc", "tiny", "split digits", "class", row, "accuracy", mean, half, n, f"0-{n - 1}", cell, "", ""
    )


# --- the difference and the status


def test_welch_is_scipys():
    random = np.random.RandomState(0)
    for n, m in ((3, 10), (5, 5), (20, 2)):
        ours, theirs = random.normal(80, 2, n), random.normal(81, 0.5, m)
        expected = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
        found = welch(ours.mean(), ours.std(ddof=1), n, theirs.mean(), theirs.std(ddof=1), m)
        assert found.estimate == pytest.approx(ours.mean() - theirs.mean())
        assert (found.low, found.high) == pytest.approx(tuple(expected))
        alone = stats.ttest_1samp(ours, 81.0).confidence_interval(0.95)
        found = welch(ours.mean(), ours.std(ddof=1), n, 81.0)
        assert (found.low, found.high) == pytest.approx((alone.low - 81, alone.high - 81))


def test_welch_where_nothing_is_known_of_the_spread():
    one = welch(80.0, math.nan, 1, 79.0, 0.5, 10)
    assert one.estimate == 1.0
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert welch(80.0, 0.0, 5, 79.0) == Interval(1.0, 1.0, 1.0)
    assert math.isnan(welch(80.0, 1.0, 5, 79.0, 0.5, 1).low), "a spread of one run is none"


@pytest.mark.parametrize(
    ("low", "high", "n", "expected"),
    [
        (-0.5, 0.9, 5, "reproduced"),
        (0.0, 2.0, 5, "reproduced"),  # |d| = H = the margin
        (-2.0, 0.0, 3, "reproduced"),
        (-1.1, 1.1, 5, "too few seeds to say"),  # the mean agrees, and the interval is wider than the margin
        (0.9, 1.3, 5, "too few seeds to say"),  # |d| is above the margin, and the interval reaches into it
        (1.0, 1.3, 5, "too few seeds to say"),  # ... at its very end
        (1.01, 1.3, 5, "deviates"),
        (-9.0, -1.01, 5, "deviates"),  # however wide
        (-9.0, -1.0, 5, "too few seeds to say"),
        (1.01, 1.3, 2, "too few seeds to say"),  # two seeds say nothing
        (-0.1, 0.1, 2, "too few seeds to say"),
    ],
)
def test_status_at_the_margin(low, high, n, expected):
    assert status(Interval((low + high) / 2, low, high), n, margin=1.0) == expected


def test_a_difference_that_is_the_margin_on_paper_is_within_it():
    """100 * 0.804 - 79.6 is a little above 0.8 in floating point."""
    difference = 100 * 0.804 - 79.6
    assert difference > 0.8
    assert status(Interval(difference, difference - 0.1, difference + 0.1), 5, margin=0.8) == "reproduced"


def test_one_seed_says_nothing():
    assert status(Interval(0.0, math.nan, math.nan), 1, margin=1.0) == "too few seeds to say"


def test_comparisons_in_per_cent_and_points(tmp_path):
    """naive: Welch with the paper's sd and n; joint: nothing is known of the paper's spread, so our interval alone."""
    found = compare_published(published(tmp_path), [line(0.204, 0.004), line(0.95, 0.01, row="joint")])
    naive, joint, *untried = found
    ours = 0.4 / float(half_width(1.0, 5))
    assert naive.difference == welch(20.4, ours, 5, 20.0, 0.5, 10)
    assert naive.difference.estimate == pytest.approx(0.4)
    assert naive.status == "reproduced"
    assert (joint.difference.estimate, joint.difference.low, joint.difference.high) == pytest.approx((5.0, 4.0, 6.0))
    assert joint.status == "deviates"
    assert [one.status for one in untried] == ["not tried"] * 2
    assert [one.number.why for one in untried] == ["no study yet"] * 2


def test_a_standard_error_becomes_a_standard_deviation(tmp_path):
    number = published(tmp_path, FILE.replace("kind: sd, n: 10", "kind: sem, n: 16")).numbers[0]
    assert number.sd == pytest.approx(0.5 * 4)
    assert math.isnan(published(tmp_path, FILE.replace("kind: sd, n: 10", "n: 10")).numbers[0].sd), "unknown"
    assert math.isnan(published(tmp_path, FILE.replace("kind: sd, n: 10", "kind: sd")).numbers[0].sd), "n unknown"


def test_the_last_line_of_a_row_counts(tmp_path):
    found = compare_published(published(tmp_path), [line(0.5), line(0.2)])
    assert found[0].ours.mean == 0.2
    assert found[0].status == "reproduced"


def test_a_deviation_needs_a_reason_and_a_reason_a_deviation(tmp_path):
    lines = [line(0.2), line(0.95, 0.01, row="joint")]
    said = problems(compare_published(published(tmp_path), lines))
    assert len(said) == 1
    assert "line 6" in said[0]
    assert "joint, class, accuracy deviates from Somebody 2020 and has no why" in said[0]
    explained = published(tmp_path, FILE.replace("value: 90}", "value: 90, why: another network}"))
    assert problems(compare_published(explained, lines)) == []
    lines = [line(0.2), line(0.9, 0.001, row="joint")]
    assert "its why is out of date" in problems(compare_published(explained, lines))[0]


def test_a_measurement_beside_nothing_is_history(tmp_path):
    """A number may be taken out of published.yaml; its measurements stay where they are."""
    found = compare_published(published(tmp_path), [line(row="lwf"), line()])
    assert problems(found) == []
    assert [one.ours for one in found] == [line(), None, None, None]


# --- the file of published numbers


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("method: naive", "method: niave", r"line 5: numbers\.0: 'niave' is no method; did you mean 'naive'"),
        ("paper: hsu2018re", "paper: hsu2019re", r"line 5: .*references\.bib has no key 'hsu2019re'"),
        ("study: tiny.yaml", "study: tinny.yaml", r"line 2: settings\.tiny: .*tinny\.yaml: there is no such file"),
        ("value: 90}", "value: 90, metric: acuracy}", r"line 6: .*there is no column 'acuracy'; columns are accuracy"),
        ("setting: none, method", "setting: nothing, method", r"line 7: .*no setting 'nothing'; there are tiny, none"),
        (
            "stream: split digits, scenarios: [class]",
            "stream: split mnist, scenarios: [class]",
            "the study's is 'split",
        ),
        ("scenarios: [class], margin", "scenarios: [task], margin", r"the study has no scenario 'task'; it has class"),
        ("margin: 1", "margin: -1", r"line 2: .*margin is -1; it takes a number of at least 0"),
        (", given: before", "", r"line 2: .*given is None; it takes a text"),
        (", why: no study yet", "", r"line 3: .*study is null, so why has to say what is lacking"),
        ("method: joint", "method: er", r"line 6: .*the study tiny does not run er; add it there, or say study: null"),
        ("method: joint", "method: hat", r"line 6: .*hat can't run class-incremental; say study: null"),
        ("value: 90}", "value: 90, study: null}", r"line 6: .*study is null, so why has to say what is lacking"),
        ("value: 90}", "value: 90, study: other.yaml}", r"line 6: .*here it is null or left out"),
        ("value: 90}", "value: ninety}", r"line 6: .*value is 'ninety'; it takes a number"),
        ("value: 90}", "valu: 90}", r"line 6: unknown key numbers\.1\.valu \(did you mean value\?\)"),
        ("class: 80.0", "domain: 80.0", r"line 7: .*the setting has no scenario 'domain'; it has task, class"),
        ("value: {task: 99.0, class: 80.0}", "value: 99", r"line 7: .*value takes a mapping of task, class to numbers"),
        ("read: memory", "read: hearsay", r"line 6: .*read is 'hearsay'; it can be one of read, figure, code"),
        ("n: 10", "n: 2.5", r"line 5: .*n is 2\.5; it takes a whole number of at least 1"),
        ("n: 10", "n: 10, variant: {lr: 1}", r"line 5: .*lr is no hyper-parameter of naive"),
        ("n: 10", "n: 10, variant: 5", r"line 5: .*variant is 5; it takes a mapping"),
        ("dualnet:", "dualnett:", r"line 9: unknown key without\.dualnett \(did you mean dualnet\?\)"),
        ("dualnet:", "naive:", r"line 9: .*naive has numbers above, so it can't be without any"),
        ("  - {setting: tiny, method: joint", "  - {setting: tiny, method: naive", None),
    ],
)
def test_a_mistake_is_one_sentence_with_line_and_entry(tmp_path, old, new, said):
    assert old in FILE
    text = FILE.replace(old, new, 1)
    if said is None:  # other paper and place: two numbers of one row are no mistake
        assert len(published(tmp_path, text).numbers) == 4
        return
    with pytest.raises(StudyError, match=said) as error:
        published(tmp_path, text)
    assert "\n" not in str(error.value)


def test_one_number_twice_is_a_mistake(tmp_path):
    entry = next(part for part in FILE.splitlines() if "method: joint" in part)
    with pytest.raises(StudyError, match=r"line 7.*joint class: the same number stands at .*line 6"):
        published(tmp_path, FILE.replace(entry, f"{entry}\n{entry}"))


def test_citations_are_read_from_bibtex():
    bibtex = (ROOT / "cl_ext" / "references.bib").read_text(encoding="utf-8")
    assert short_citation(bibtex, "buzzega2020dark") == "Buzzega et al. 2020"
    assert short_citation(bibtex, "lopezpaz2017gradient") == "Lopez-Paz and Ranzato 2017"
    assert short_citation(bibtex, "serra2018overcoming") == "Serrà et al. 2018"
    assert short_citation(bibtex, "diazrodriguez2018dont") == "Díaz-Rodríguez et al. 2018"
    assert short_citation(bibtex, "nobody1999nothing") is None


# --- the history


def test_lines_come_back_as_they_were_and_old_ones_stay(tmp_path):
    path = tmp_path / "reproduced.csv"
    first = [line(), dataclasses.replace(line(0.5, math.nan, 1, row="joint"), note="a note, with a comma")]
    assert append(path, first) == first
    assert read_measured(path)[0] == first[0]
    assert dataclasses.replace(read_measured(path)[1], half_width=0) == dataclasses.replace(first[1], half_width=0)
    before = path.read_bytes()
    again = dataclasses.replace(first[0], date="2027-01-01", note="the same")
    assert append(path, [again]) == []
    assert path.read_bytes() == before
    new = line(0.21)
    assert append(path, [new]) == [new]
    assert path.read_bytes().startswith(before), "appended, never edited"
    assert latest(read_measured(path))[new.place] == new
    assert len(read_measured(path)) == 3


def test_one_seed_taken_twice_is_one_line(tmp_path):
    """Its interval is NaN, which equals nothing."""
    path = tmp_path / "reproduced.csv"
    append(path, [line(0.5, math.nan, 1)])
    assert append(path, [line(0.5, float("nan"), 1)]) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("2026-11-22", "yesterday", r"line 6, column date: it is 'yesterday'; it takes a day"),
        (",0.2,", ",much,", r"line 6, column mean: it is 'much'; it takes a number"),
        (",0.2,", ",,", r"line 6, column mean: it is empty"),
        (",0.005,", ",,", r"line 6, column half_width: it is '' with n = 5"),
        (",5,0-4", ",0,0-4", r"line 6, column n: it is '0'; it takes a whole number of at least 1"),
        (",5,0-4", ",0-4", r"line 6: it has 13 fields; it takes 14"),
        ("date,commit", "day,commit", r"line 5: the head line must be date,commit"),
    ],
)
def test_a_bad_line_is_one_sentence(tmp_path, old, new, said):
    path = tmp_path / "reproduced.csv"
    append(path, [line()])
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    with pytest.raises(StudyError, match=said):
        read_measured(path)


# --- measuring


def stored(folder: Path, accuracies: dict[tuple[str, int], float], failed: Sequence[tuple[str, int]] = ()) -> Path:
    """A store with a record of each method and seed, two experiences at the same final accuracy."""
    store = Store(folder / "store")
    study = Study.load(folder / "tiny.yaml")
    for (method, seed), accuracy in accuracies.items():
        own = dataclasses.replace(study, methods=(method,), seeds=(seed,))
        cell = own.cells()[0]
        R = [[0.1, 0.1], [1.0, 0.1], [accuracy, accuracy]]
        broken = (method, seed) in failed
        record = {
            "schema": 1, "run_id": cell.run_id, "status": "failed" if broken else "done",
            "error": {"type": "ValueError", "message": "no", "traceback": ""} if broken else None,
            "matrix": None if broken else {"task_aware": R, "task_agnostic": R},
        }  # fmt: skip
        store.write(cell, record, {"commit": "0123abc", "machine": "x86_64", "cores": 2, "packages": {"torch": "2.13"}})
    return store.root


NAIVE = {("naive", seed): value for seed, value in enumerate((0.19, 0.2, 0.24))}


def test_a_store_is_measured_by_the_cells_of_the_study(tmp_path):
    numbers = published(tmp_path)
    root = stored(tmp_path, NAIVE)
    (found,), left = measure(numbers, collect(root), [root])
    assert left == []
    assert found.place == ("tiny", "split digits", "class", "naive", "accuracy")
    assert found.mean == pytest.approx(0.21)
    expected = stats.t.ppf(0.975, 2) * np.std([0.19, 0.2, 0.24], ddof=1) / math.sqrt(3)
    assert found.half_width == pytest.approx(expected)
    assert (found.n, found.seeds, found.commit) == (3, "0-2", "0123abc"), "seed 2 is beyond the study's, and counts"
    assert found.machine == "x86_64 2 cores cpu torch 2.13"
    assert found.cell == cell_of(numbers.numbers[0])
    (found,), _ = measure(numbers, collect(root), [root], seeds=[0, 1])
    assert (found.n, found.mean) == (2, pytest.approx(0.195))


def test_a_row_with_a_failed_or_a_missing_seed_is_left_out(tmp_path):
    numbers = published(tmp_path)
    root = stored(tmp_path, NAIVE, failed=[("naive", 1)])
    found, left = measure(numbers, collect(root), [root])
    assert found == []
    assert left == ["tiny, class: naive: left out, seed 1 failed"]
    (tmp_path / "other").mkdir()
    write(tmp_path / "other")
    root = stored(tmp_path / "other", {("naive", 1): 0.2})
    found, left = measure(numbers, collect(root), [root])
    assert found == []
    assert left == ["tiny, class: naive: left out, it has seeds 1 and lacks 0 (--seeds?)"]
    assert measure(numbers, collect(root), [root], seeds=[1])[0][0].n == 1


def test_cells_of_another_budget_are_not_measured(tmp_path):
    """A control: the study has changed since, so the store's cells are not what it asks for."""
    published(tmp_path)
    root = stored(tmp_path, NAIVE)
    write(tmp_path, TINY.replace("lr: 0.1", "lr: 0.2"))
    assert measure(read_published(tmp_path / "published.yaml"), collect(root), [root]) == ([], [])


def test_a_measurement_is_stale_once_the_study_has_changed(tmp_path):
    numbers = published(tmp_path)
    now = line(cell=cell_of(numbers.numbers[0]))
    assert not compare_published(numbers, [now])[0].stale
    write(tmp_path, TINY.replace("lr: 0.1", "lr: 0.2"))
    changed = read_published(tmp_path / "published.yaml")
    comparisons = compare_published(changed, [now])
    assert comparisons[0].stale
    assert "reproduced, *stale*" in reproduction_page(changed, comparisons)
    assert not compare_published(changed, [line()])[0].stale, "a number of a page has no cell: nothing is known"


# --- the page, and the files of this repository


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """The script in this process: exit code, what it printed, what it said of mistakes."""
    spec = importlib.util.spec_from_file_location("published_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["published.py", *map(str, arguments)])
        code = module.main()
    said = capsys.readouterr()
    return code, said.out, said.err


def test_this_repositorys_page_is_what_its_files_give():
    command = [sys.executable, str(SCRIPT), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_every_row_has_a_number_or_a_reason():
    numbers = read_published(FILES / "published.yaml")
    told = {one.method for one in numbers.numbers} | set(numbers.without)
    lacking = [name for name in METHODS.own_names if name not in told and not METHODS[name].reference]
    assert not lacking, "published.yaml takes a number of each row, or a line under `without`"


def test_the_script_writes_checks_and_catches(tmp_path, capsys):
    published(tmp_path)
    root = stored(tmp_path, NAIVE)
    files = {"published": "published.yaml", "measured": "reproduced.csv", "page": "p.md"}
    own = [part for name, file in files.items() for part in (f"--{name}", tmp_path / file)]
    code, printed, _ = call(capsys, root, "--append", *own)
    assert code == 0
    assert "1 measured, 0 left out" in printed
    page = (tmp_path / "p.md").read_text()
    assert "| [tiny](#tiny) | class | ACC | 20.0 ± 0.5 (10) | 21.00 ± 6.57 (3) | +1.00 [" in page
    assert "cl-ext run benchmarks/tiny.yaml --data-root DATA --methods naive --seeds 0-2" in page
    assert "Not run yet: `cl-ext run benchmarks/tiny.yaml --data-root DATA --methods joint`" in page
    assert "| dualnet | not checked |" in page
    assert call(capsys, "--check", *own)[0] == 0

    (tmp_path / "p.md").write_text(page.replace("21.00", "20.00"))
    code, _, said = call(capsys, "--check", *own)
    assert code == 1
    assert "is not what the two files give" in said
    assert (tmp_path / "p.md").read_text() != page, "--check writes nothing"

    append(tmp_path / "reproduced.csv", [line(0.5, 0.001)])
    assert call(capsys, *own)[0] == 1, "the page is written, and something has to be explained"
    code, _, said = call(capsys, "--check", *own)
    assert code == 1
    assert "deviates from Hsu et al. 2018 and has no why" in said
    assert "is not what the two files give" not in said

    (tmp_path / "published.yaml").write_text(FILE.replace("naive", "niave"))
    code, _, said = call(capsys, *own)
    assert code == 2
    assert "'niave' is no method" in said
    code, _, said = call(capsys, tmp_path / "nowhere")
    assert code == 2
    assert "is no store" in said


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "MNIST").is_dir(), reason=f"no MNIST under {DATA}; set CL_EXT_DATA")
def test_a_published_number_is_run_and_reproduced(tmp_path):
    """Fine-tuning on sequential MNIST (Buzzega et al. 2020: 19.60), three seeds: the whole way from study to status."""
    numbers = read_published(FILES / "published.yaml")
    study = numbers.settings["sequential_mnist_200"].study
    asked = study.with_selection(methods=["naive"], seeds=[0, 1, 2])
    assert run(asked, tmp_path, workers=2, data_root=DATA).failed == 0
    measured, _ = measure(numbers, collect(tmp_path), [tmp_path], seeds=[0, 1, 2])
    found = [one for one in compare_published(numbers, measured) if one.ours is not None]
    assert [(one.number.setting.key, one.number.method, one.status) for one in found] == [
        ("sequential_mnist_200", "naive", "reproduced")
    ]
    (one,) = found
    wrong = dataclasses.replace(one.number, value=one.number.value + 2)
    control = dataclasses.replace(numbers, numbers=(wrong,))
    assert compare_published(control, measured)[0].status == "deviates"
    known = latest(read_measured(FILES / "reproduced.csv"))[one.ours.place]
    assert abs(one.ours.mean - known.mean) < 0.005, "the five seeds of the history have 19.66 %"
