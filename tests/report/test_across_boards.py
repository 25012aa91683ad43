"""Across boards: the common scale by hand, who is ranked, which boards are left out and why."""

from cl_ext.report import across
from cl_ext.report.statistics import friedman, iqm, probability_of_improvement

import numpy as np
import pandas as pd
import pytest
from scipy import stats

SEEDS = 6


def board(stream: str, scenario: str = "class", study: str = "s", **methods: object) -> list[dict[str, object]]:
    """A board with these accuracies, (seeds,) or one for all; None is a failed cell."""
    rows = []
    for method, values in methods.items():
        each = values if isinstance(values, list) else [values] * SEEDS
        rows += [
            {
                "study": study,
                "stream": stream,
                "scenario": scenario,
                "method": method,
                "seed": seed,
                "status": "failed" if value is None else "done",
                "accuracy": value,
            }
            for seed, value in enumerate(each)
        ]
    return rows


def frame(*boards: list[dict[str, object]]) -> pd.DataFrame:
    return pd.DataFrame([row for rows in boards for row in rows])


def around(centre: float, step: float = 0.01) -> list[float]:
    return [centre + step * (seed - (SEEDS - 1) / 2) for seed in range(SEEDS)]


def two() -> pd.DataFrame:
    """Between naive .2 and joint .8 in one board and .5 and .9 in the other."""
    return frame(
        board("a", naive=0.2, joint=0.8, er=around(0.5), lwf=around(0.35), mas=around(0.26)),
        board("b", naive=0.5, joint=0.9, er=around(0.7), lwf=around(0.6), ogd=around(0.88)),
    )


def test_the_scale_by_hand():
    found = across(two())
    assert [place[1] for place in found.boards] == ["a", "b"]
    assert found.left_out.empty
    table = found.table.set_index("label")
    er = [(value - 0.2) / 0.6 for value in around(0.5)] + [(value - 0.5) / 0.4 for value in around(0.7)]
    # 12 runs: the lowest and the highest three are left out
    assert table.loc["er", "iqm"] == pytest.approx(np.mean(sorted(er)[3:-3]))
    assert table.loc["er", "iqm_low"] < table.loc["er", "iqm"] < table.loc["er", "iqm_high"]
    assert table.loc["er", ["boards", "of", "runs", "rank", "over_naive"]].tolist() == [2, 2, 12, 1, 1]
    assert table.loc["lwf", ["rank", "over_naive", "over_best"]].tolist() == [2, 1, 0]
    np.testing.assert_allclose(found.runs["er"][("s", "b", "class")], [(v - 0.5) / 0.4 for v in around(0.7)])


def test_seeds_are_scaled_by_their_own_bounds():
    naive, joint = around(0.2, 0.02), around(0.8, -0.03)
    er = [(low + high) / 2 for low, high in zip(naive, joint, strict=True)]
    found = across(frame(board("a", naive=naive, joint=joint, er=er), board("b", naive=0.5, joint=0.9, er=0.7)))
    assert found.table.loc[0, "iqm"] == pytest.approx(0.5)
    assert found.table.loc[0, ["iqm_low", "iqm_high"]].tolist() == pytest.approx([0.5, 0.5])


def test_rows_that_lack_a_board_stand_apart_unranked():
    found = across(two())
    assert found.ranked["label"].tolist() == ["er", "lwf"]
    assert found.partial["label"].tolist() == ["mas", "ogd"]  # by name: ogd's .88 on one board beats nothing
    assert found.partial[["boards", "of", "runs"]].to_numpy().tolist() == [[1, 2, 6], [1, 2, 6]]
    unknown = [name for name in found.table if name not in ("label", "boards", "of", "runs")]
    assert found.partial[unknown].isna().all(axis=None)
    assert set(found.runs) == {"er", "lwf"}


def test_a_failed_seed_makes_a_row_incomplete_there():
    values = around(0.5)
    values[2] = None
    cells = frame(
        board("a", naive=0.2, joint=0.8, er=values, lwf=around(0.35)),
        board("b", naive=0.5, joint=0.9, er=around(0.7), lwf=around(0.6)),
    )
    found = across(cells)
    assert found.ranked["label"].tolist() == ["lwf"]
    assert found.partial["label"].tolist() == ["er"]
    assert found.ranked["rank"].tolist() == [1]
    assert found.friedman is None


def test_boards_that_cannot_be_scaled_are_left_out_with_the_reason():
    low = around(0.8)
    low[1] = low[4] = 0.1
    broken = around(0.2)
    broken[0] = None
    cells = frame(
        board("a", naive=0.2, joint=0.8, er=0.5),
        board("b", joint=0.8, er=0.5),
        board("c", naive=0.2, er=0.5),
        board("d", naive=0.2, joint=low, er=0.5),
        board("e", naive=broken, joint=0.8, er=0.5),
        board("f", naive=0.2, joint=0.2, er=0.5),
    )
    found = across(cells)
    assert [place[1] for place in found.boards] == ["a"]
    assert found.left_out[["stream", "reason"]].to_numpy().tolist() == [
        ["b", "no finished cell of naive"],
        ["c", "no finished cell of joint"],
        ["d", "joint is not above naive at seed 1, 4"],
        ["e", "naive has failed or missing cells"],
        ["f", "joint is not above naive at seed 0, 1, 2, 3, 4, 5"],
    ]


def test_references_are_on_the_scale_and_not_in_the_table():
    cells = frame(board("a", naive=0.2, joint=0.8, cumulative=0.7, separate=0.9, er=0.5))
    assert across(cells).table["label"].tolist() == ["er"]


def test_one_scenario():
    cells = frame(
        board("a", "class", naive=0.2, joint=0.8, er=0.5, lwf=0.3),
        board("a", "task", naive=0.5, joint=0.9, er=0.6, lwf=0.7, hat=0.8),
        board("b", "task", naive=0.5, joint=0.9, er=0.6, lwf=0.7, hat=0.8),
    )
    # of 18 runs at 1/6 (6) and 1/2 (12), or at 1/2 (6) and 1/4 (12), four are left out at each end
    assert across(cells).ranked[["label", "iqm"]].to_numpy().tolist() == [
        ["lwf", pytest.approx((2 / 6 + 8 / 2) / 10)],
        ["er", pytest.approx((8 / 4 + 2 / 2) / 10)],
    ]
    task = across(cells, "task")
    assert task.scenario == "task"
    assert task.ranked["label"].tolist() == ["hat", "lwf", "er"]
    assert task.ranked["tier"].tolist() == [1, 2, 3]


def test_tiers_are_overlapping_intervals():
    wide = [0.3, 0.7, 0.4, 0.6, 0.45, 0.55]
    cells = frame(
        *(board(name, naive=0.0, joint=1.0, er=around(0.52), der=wide, lwf=around(0.2)) for name in ("a", "b"))
    )
    table = across(cells).table.set_index("label")
    assert table.loc[["er", "der", "lwf"], "tier"].tolist() == [1, 1, 2]
    assert table.loc["der", "iqm_high"] >= table.loc["er", "iqm_low"] > table.loc["lwf", "iqm_high"]


def test_the_statistics_are_those_of_the_statistics_module():
    random = np.random.RandomState(0)
    names = ["er", "lwf", "mas", "si"]
    places = [f"b{number}" for number in range(10)]
    values = {place: {name: random.rand(SEEDS).tolist() for name in names} for place in places}
    found = across(frame(*(board(place, naive=0.0, joint=1.0, **values[place]) for place in places)))
    table = found.table.set_index("label")
    runs = {name: {place: np.array(values[place][name]) for place in places} for name in names}
    for name in names:
        assert table.loc[name, "iqm"] == pytest.approx(iqm(np.array([runs[name][place] for place in places]).T))
        ranks = [
            stats.rankdata([-values[place][other][seed] for other in names])[names.index(name)]
            for place in places
            for seed in range(SEEDS)
        ]
        assert table.loc[name, "rank"] == pytest.approx(np.mean(ranks))
        if name != table.index[0]:
            win = probability_of_improvement(runs[name], runs[table.index[0]])
            assert table.loc[name, ["over_best", "over_best_low", "over_best_high"]].tolist() == pytest.approx(
                [win.estimate, win.low, win.high]
            )
    means = np.array([[np.mean(values[place][name]) for name in found.runs] for place in places])
    assert found.friedman is not None
    assert found.friedman.carries
    assert found.friedman.p == pytest.approx(friedman(means).p)


def test_with_few_boards_friedman_says_why_not():
    found = across(two())
    assert found.friedman is not None
    assert not found.friedman.carries
    assert "at least 10 streams" in found.friedman.sentence


def test_scenarios_of_one_stream_are_no_streams_of_their_own():
    boards = [
        board(f"stream {number}", scenario, naive=0.0, joint=1.0, er=around(0.5 + shift), lwf=around(0.4 - shift))
        for number in range(6)
        for scenario, shift in (("class", 0.0), ("task", 0.1 if number else -0.08))
    ]
    found = across(frame(*boards))
    assert len(found.boards) == 12
    assert found.friedman is not None
    assert not found.friedman.carries
    assert "there are 6" in found.friedman.sentence
    # er leads on every stream: in the mean of its two scenarios on the first one, where lwf leads in one of them
    assert found.friedman.ranks.tolist() == [1, 2]


def test_nothing_to_sum_up():
    empty = across(two().iloc[:0])
    assert (empty.boards, len(empty.table), empty.friedman) == ([], 0, None)
    failed = across(two().assign(status="failed"))
    assert failed.boards == []
    assert set(failed.left_out["reason"]) == {"no finished cell of naive"}


def test_a_board_of_references_only_has_nothing_to_sum_up():
    found = across(frame(board("a", naive=0.2, joint=0.8)))
    assert found.table.empty
    assert found.friedman is None
