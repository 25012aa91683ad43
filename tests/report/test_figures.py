"""Every figure is one line from the frame alone, can be read with 40 methods, and embeds its fonts."""

import copy
import math

import cl_ext.report as report
from cl_ext.report.drawing import style
from cl_ext.report.drawing.plots import FIGURES
from cl_ext.report.drawing.runs import Board, boards

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from tests.report import legible, synthetic

LONG = ["generative_replay_avalanche", "ewc_online_avalanche", "a_method_with_quite_a_long_name (some_lambda=100.0)"]
UNITS = {"1": [[0.5, 0.0, 0.25], [0.0, 1.0, 0.25]], "3": [[1.0, 0.0], [0.0, 0.5]]}


def forty() -> pd.DataFrame:
    """The frame of a class-incremental board of 40 methods: failures, gaps, a sweep, sizes, structures."""
    cells = [cell for cell in synthetic.records(seeds=3) if cell["scenario"] == "class" or cell["method"] == "cpg"]
    er = [cell for cell in cells if cell["method"] == "er"]
    names = [*LONG, *(f"method_{number}" for number in range(40 - 28 - len(LONG)))]
    for number, name in enumerate(names):
        for cell in er:
            other = copy.deepcopy(cell) | {"method": name, "run_id": f"{name}-{cell['seed']}"}
            other["costs"] |= {"extra_bytes": 1000 + 10 * number, "parameters": 17000 + number}
            R = np.clip(np.array(cell["matrix"]["task_agnostic"]) - 0.003 * number, 0, 1).tolist()
            other["matrix"] = {"task_aware": R, "task_agnostic": R}
            cells.append(other)
    for cell in cells:
        cell["scenario"] = "class"
        grown = 100 if cell["method"] == "cpg" else 0
        cell["sizes"] = [
            {"parameters": 1000 + grown * e, "nonzero": 900, "by_task": {}, "extra_bytes": e * 10 ** (cell["seed"] + 2)}
            for e in range(synthetic.T + 1)
        ]
        layers = {layer: {"selected": 3, "added": 2, "split": 1} for layer in UNITS}
        history = [{"task": task, "layers": layers} for task in range(synthetic.T)]
        cell["structure"] = {"units": UNITS, "history": history} if grown else {}
    frame = synthetic.frame(cells)
    er = frame[frame["method"] == "er"]
    swept = [er.assign(run_id=er["run_id"] + f"-{value}", **{"hp.er_lambda": value}) for value in (0.0, 0.1, 1.0, 1e4)]
    return pd.concat([frame[frame["method"] != "er"], *swept], ignore_index=True)


@pytest.fixture(scope="module", name="frame")
def _frame() -> pd.DataFrame:
    return forty()


@pytest.fixture(scope="module", name="board")
def _board(frame: pd.DataFrame) -> Board:
    """The frame's only board, made once: each call with the frame sums all its cells up."""
    (board,) = boards(frame)
    return board


def of(name: str):
    return getattr(report, FIGURES[name].draw.__name__)


def test_there_are_forty_methods(frame, board):
    assert frame["method"].nunique() == 40
    assert len(board.table) > 40


@pytest.mark.parametrize("width", ["one", "two"])
@pytest.mark.parametrize("name", FIGURES)
def test_a_page_of_forty_methods_can_be_read(frame, board, name, width):
    # one width from the frame, as users call it, the other from its board
    pages = of(name)(frame if width == "two" else board, scenario="class", width=width)
    assert pages
    for page in pages:
        assert isinstance(page, Figure)
        inches = page.get_size_inches()
        assert inches[0] == {"one": 3.5, "two": 7.2}[width]
        assert inches[1] < 9.5
        assert legible.faults(page) == []


def test_the_check_sees_overlaps_and_texts_beyond_the_page():
    figure = Figure(figsize=(2, 2))
    figure.text(0.5, 0.5, "one")
    figure.text(0.52, 0.5, "two")
    figure.text(0.9, 0.9, "far too long for the page")
    assert len(legible.faults(figure)) == 2


def test_a_shortened_name_stays_apart_from_its_fellows():
    long = "a_method_with_quite_a_long_name (some_lambda={})"
    short = {style.fitted(long.format(value), 0.8)[0] for value in (1.0, 10.0, 0.5)}
    assert len(short) == 3
    assert all("…" in text for text in short)


@pytest.mark.parametrize("name", FIGURES)
def test_a_frame_without_the_data_says_what_is_needed(name):
    bare = pd.DataFrame(
        [{"study": "s", "stream": "d", "scenario": "class", "method": "er", "seed": 0, "status": "done"}]
    )
    kind = FIGURES[name].draw
    with pytest.raises(ValueError, match=f"{kind.__name__} needs ") as caught:
        of(name)(bare)
    assert kind.needs in str(caught.value)
    assert "s, class-incremental (d)" in str(caught.value)


def test_a_wrong_selection_is_one_sentence(frame):
    with pytest.raises(ValueError, match="the frame has no scenario 'domain'; it has 'class'"):
        report.accuracy_matrices(frame, scenario="domain")
    with pytest.raises(ValueError, match="no row is called 'errr'; there are "):
        report.accuracy_matrices(frame, methods=["er", "errr"])
    with pytest.raises(ValueError, match="width is 'three'; it takes 'one' or 'two'"):
        report.accuracy_matrices(frame, width="three")


def test_methods_choose_rows(frame):
    (page,) = report.accuracy_matrices(frame, methods=["naive", "derpp"])
    shown = {text.get_text() for text in page.axes[0].findobj(Text)}
    assert {"naive", "derpp"} <= shown
    assert "mir" not in shown


def test_whoever_saves_a_page_gets_embedded_fonts(frame, tmp_path):
    before = mpl.rcParams["pdf.fonttype"]
    (page,) = report.accuracy_intervals(frame)
    page.savefig(tmp_path / "page.pdf")
    content = (tmp_path / "page.pdf").read_bytes()
    assert b"/FontFile2" in content
    assert b"/Subtype /Type3" not in content
    assert mpl.rcParams["pdf.fonttype"] == before


def test_a_panel_says_which_seeds_are_missing():
    records = [cell for cell in synthetic.records(names=["naive", "gem"]) if cell["scenario"] == "task"]
    (board,) = boards(synthetic.frame(records))
    assert board.names == {"gem": "gem (3/5 seeds)", "naive": "naive"}
    assert board.complete == {"naive"}


def test_frames_made_by_hand_need_no_object_columns():
    rows = [
        {"study": "s", "scenario": "class", "method": name, "seed": seed, "status": "done", "accuracy": low + seed / 2}
        for name, low in (("naive", 0.1), ("er", 0.2)) for seed in (0, 1)
    ]  # fmt: skip
    (page,) = report.accuracy_intervals(pd.DataFrame(rows))
    assert [label.get_text() for label in page.axes[0].get_yticklabels()] == ["er", "naive"]
    means = sorted(float(x) for line in page.axes[0].lines for x in line.get_xdata() if line.get_marker() in "os")
    assert means == pytest.approx([35.0, 45.0])


def test_boards_of_matrices_of_several_sizes_are_refused():
    records = [cell for cell in synthetic.records(seeds=2, names=["er"]) if cell["scenario"] == "task"]
    frame = synthetic.frame(records)
    frame.at[0, "matrix_task_aware"] = np.full((3, 2), 0.5)
    with pytest.raises(ValueError, match=r"matrices of \(3, 2\) and \(6, 5\) in scenario 'task'"):
        boards(frame)


def test_no_tick_of_few_seeds_pretends_to_an_interval():
    records = [cell for cell in synthetic.records(seeds=4, names=["er"]) if cell["scenario"] == "task"]
    (page,) = report.accuracy_intervals(synthetic.frame(records))
    (bars,) = page.axes[0].containers
    assert all(math.isnan(x) for segment in bars[2][0].get_segments() for x, _ in segment) or not bars[2]
