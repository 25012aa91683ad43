"""A search chooses on held-out data of seeds that are not reported, and goes on where it was."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator

from cl_ext.methods import METHODS
from cl_ext.report.tables.tuning import tuning_lines
from cl_ext.streams import StreamSpec, build_stream
from cl_ext.study import CellSpec, Store, Study, collect
from cl_ext.study.executors.local import Outcome
from cl_ext.study.protocol import Protocol, first_experiences, parse_grids, strength_of
from cl_ext.study.tune import choose, read, search_of
from cl_ext.study.tuned import merged_tuning

import pytest
import torch

from tests.study.helpers import TINY, write
from tests.study.search import TWO, Fake, call, found_of, peak, strength, write_record
from tests.study.test_store import record

DECADES = {"lfl": [10.0**e for e in range(-3, 4)], "scp": [10.0**e for e in range(-2, 6)]}


def test_it_chooses_the_best_and_writes_a_study_that_has_it(tmp_path, fake):
    executor = fake(peak)
    path, out = write(tmp_path, "# A header.\n" + TWO + "values: {scp: {alpha: 0.5}}\n"), tmp_path / "out"
    code, text = call("tune", path, "--out", out, "--seeds", "1000-1001")
    assert code == 0, text
    assert Counter((cell.method, cell.scenario, cell.seed) for cell in executor.ran) == {
        (method, scenario, seed): len(values)
        for method, values in DECADES.items() for scenario in ("task", "class") for seed in (1000, 1001)
    }  # fmt: skip
    assert {cell.stream["validation"] for cell in executor.ran} == {0.2}
    assert {cell.hyperparameters["alpha"] for cell in executor.ran if cell.method == "scp"} == {0.5}
    assert "edge of its range" not in text
    for row in (r"lfl . task . lfl_lambda . 0.001: 65.0, .* 1: 80.0, 10: 75.0", r"scp . class .* 10: 80.0, 100: 75.0"):
        assert re.search(row, text), text
    before, after = Study.load(path), Study.load(out / "tiny.yaml")
    assert after.values == {
        "lfl": {"lfl_lambda": {"task": 1, "class": 10}}, "scp": {"alpha": 0.5, "scp_lambda": {"task": 1, "class": 10}},
    }  # fmt: skip
    assert after.tuning["configurations"] == {"lfl": 7, "scp": 8}
    assert after.tuning["seeds"] == [1000, 1001]
    values = {(c.method, c.scenario): strength(c) for c in after.cells() if c.method != "naive"}
    assert values == {(m, s): {"task": 1.0, "class": 10.0}[s] for m in ("lfl", "scp") for s in ("task", "class")}
    unchanged = {"path": None, "values": {}, "tuning": {}}
    assert dataclasses.replace(before, **unchanged) == dataclasses.replace(after, **unchanged)
    page = (out / "tiny.yaml").read_text()
    assert page.startswith("# A header.\n")
    assert f"# Tuned by: cl-ext tune {path} --seeds 1000,1001 --validation 0.2\n" in page


def test_finished_cells_are_not_run_again_and_failed_ones_on_demand(tmp_path, fake):
    path, out = write(tmp_path, TWO), tmp_path / "out"
    first = fake(lambda cell: "failed" if strength(cell) == 1000 else peak(cell))
    assert call("tune", path, "--out", out)[0] == 0
    assert len(first.ran) == 30
    written = (out / "tiny.yaml").read_text()
    again = fake(peak)
    assert call("tune", path, "--out", out)[0] == 0
    assert again.ran == []
    assert (out / "tiny.yaml").read_text() == written
    assert call("tune", path, "--out", out, "--retry-failed")[0] == 0
    assert {strength(cell) for cell in again.ran} == {1000}


def test_an_interrupted_search_goes_on(tmp_path, fake):
    path, out = write(tmp_path, TWO), tmp_path / "out"
    executor = fake(peak, stop_after=11)
    code, text = call("tune", path, "--out", out)
    assert code == 130
    assert "the same command goes on from here" in text
    assert not (out / "tiny.yaml").exists()
    rest = fake(peak)
    assert call("tune", path, "--out", out)[0] == 0
    assert (len(executor.ran), len(rest.ran)) == (11, 19)
    assert not {cell.run_id for cell in executor.ran} & {cell.run_id for cell in rest.ran}


def test_another_launchers_cells_are_waited_for(tmp_path, monkeypatch):
    class Busy(Fake):
        def run(self, cells: list[CellSpec]) -> Iterator[Outcome]:
            yield from super().run(cells[:-2])
            yield from (Outcome(cell, "busy", "another launcher runs this cell") for cell in cells[-2:])

    monkeypatch.setattr("cl_ext.study.runner.LocalExecutor", Busy(peak))
    code, text = call("tune", write(tmp_path, TWO), "--out", tmp_path / "out")
    assert code == 2
    assert "2 cells are another launcher's; nothing is chosen" in text
    assert not (tmp_path / "out" / "tiny.yaml").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--seeds", "1000,1"], "--seeds: 1 is a seed that the study reports"),
        (["--seeds", "x"], "--seeds: the seeds are 'x'"),
        (["--validation", "0"], "--validation is 0; it takes a fraction above 0 and below 1"),
        (["--validation", "1"], "--validation is 1;"),
        (["--scenarios", "domain"], "--scenarios: 'domain' is none of the study's, which are task, class"),
        (["--methods", "naive"], "naive has no strength to tune"),
        (["--methods", "lfll"], "--methods: 'lfll' is no method; did you mean 'lfl'?"),
        (["--protocol", "best"], "--protocol is 'best'; it can be end-of-stream, first-experiences, fixed, transfer"),
        (["--protocol", "end-of-stream", "--experiences", "3"], "--experiences is for --protocol first-experiences"),
        (["--protocol", "fixed", "--experiences", "3"], "and --protocol is fixed"),
        (["--protocol", "fixed", "--grid", "lfl_lambda=1"], "--protocol fixed searches nothing; leave --grid out"),
        (["--protocol", "fixed", "--sampler", "tpe"], "--protocol fixed searches nothing; leave --sampler out"),
        (["--protocol", "transfer"], "--protocol transfer and --from STUDY.yaml"),
        (["--protocol", "fixed", "--from", "b.yaml"], "--protocol transfer and --from STUDY.yaml"),
        (["--from", "nowhere.yaml"], "nowhere.yaml: there is no such file"),
        (["--protocol", "fixed", "--methods", "naive"], "none of these methods has a hyper-parameter"),
        (["--sampler", "grids"], "--sampler is 'grids'; it can be grid, tpe, random"),
        (["--trials", "5"], "--trials is for the samplers tpe and random"),
        (["--sampler", "tpe", "--trials", "0"], "--trials is 0; it takes a whole number of at least 1"),
        (["--experiences", "1"], "--experiences is 1; it takes a whole number from 2 to the stream's 5"),
        (["--experiences", "6"], "from 2 to the stream's 5"),
        (["--hyperparameters", "xi"], "--hyperparameters: 'xi' is no hyper-parameter of the methods that are tuned"),
        (["--hyperparameters", "mode"], "scp has no values of mode to search; --grid mode=... gives some"),
        (["--grid", "alpha=0.1"], "--grid: 'alpha' is not tuned here"),
        (["--grid", "lfl_lambda=-1"], "--grid: lfl: lfl_lambda is -1.0; it takes a number of at least 0"),
        (["--grid", "lfl_lambda=a"], "--grid: lfl: lfl_lambda is 'a'; it takes a number"),
        (["--grid", "lfl_lambda"], "--grid is 'lfl_lambda'; it takes a name and its values"),
        (["--grid", "lfl_lambda=1", "--grid", "lfl_lambda=2"], "--grid: lfl_lambda stands there twice"),
        (["--workers", "0"], "--workers is 0"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_runs(tmp_path, fake, options, sentence):
    executor = fake(peak)
    code, text = call("tune", write(tmp_path, TWO), "--out", tmp_path / "out", *options)
    assert code == 2
    assert sentence in text, text
    assert executor.ran == []
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("record.json"))


@pytest.mark.parametrize(
    ("results", "best"),
    [
        ({0.1: 0.800, 1.0: 0.801, 10.0: 0.8005}, 0.1),  # equal within a tenth of a point: the smallest
        ({0.1: 0.8, 1.0: 0.8011, 10.0: 0.802}, 1.0),  # 0.1 is further from the best than that
        ({10.0: 0.8, 1.0: 0.8, 0.1: 0.7}, 1.0),  # whatever order the grid was given in
        ({0.1: 0.5, 1.0: 0.6, 10.0: "diverged"}, 1.0),
        ({0.1: 0.5, 1.0: 0.6, 10.0: (0.9, "failed")}, 1.0),  # one failed seed is enough
        ({0.1: (0.9, 0.1), 1.0: (0.6, 0.6), 10.0: (0.1, 0.8)}, 1.0),  # the mean, not the best seed
    ],
)
def test_which_setting_is_chosen(tmp_path, results, best):
    (found,) = found_of(tmp_path, results)[2]
    assert found.chosen.setting.values == {"lfl_lambda": best}


@pytest.mark.parametrize(
    ("best", "edges"), [(0.1, ("lfl_lambda",)), (1.0, ()), (10.0, ("lfl_lambda",)), (0.0, ())]
)  # 0 is as low as a strength goes
def test_a_best_value_at_the_edge_of_its_grid_is_said(tmp_path, best, edges):
    values = [0.1, 1.0, 10.0] if best else [0.0, 1.0]
    (found,) = found_of(tmp_path, {value: 0.9 if value == best else 0.5 for value in values})[2]
    assert found.edges == edges
    lines = list(tuning_lines([found]))
    assert lines == [
        f"lfl, class-incremental: best at the edge of its range: lfl_lambda = {best:g}, searched from 0.1 to 10"
        for _ in edges
    ]


def test_the_ends_of_a_grid_are_its_smallest_and_largest_value(tmp_path):
    """Whatever order the settings come in: a sampler's come as they were drawn."""
    (found,) = found_of(tmp_path, {0.1: 0.9, 1.0: 0.5, 10.0: 0.5})[2]
    turned = dataclasses.replace(found, tried=found.tried[1:] + found.tried[:1])
    assert list(tuning_lines([turned])) == list(tuning_lines([found]))
    assert found.ends("lfl_lambda") == (0.1, 10.0)


def test_a_grid_of_one_value_has_no_edge(tmp_path):
    (found,) = found_of(tmp_path, {1.0: 0.5})[2]
    assert found.edges == ()


def test_failures_are_shown_and_where_all_fail_the_study_keeps_what_it_had(tmp_path, fake):
    fake(lambda cell: "diverged" if cell.method == "scp" or strength(cell) > 10 else peak(cell))
    path = write(tmp_path, TWO + "values: {scp: {scp_lambda: 7}}\n")
    code, text = call("tune", path, "--out", tmp_path / "out")
    assert code == 1
    assert "lfl, class-incremental: not chosen from: 100 diverged, 1000 diverged" in text
    assert "scp, task-incremental: no setting finished, so nothing is chosen" in text
    assert re.search(r"100: diverged, 1000: diverged .* 10 ", text)
    after = Study.load(tmp_path / "out" / "tiny.yaml")
    assert after.values["scp"] == {"scp_lambda": 7}
    assert after.tuning["configurations"] == {"lfl": 7}


def test_undefined_accuracy_is_never_chosen(tmp_path):
    study = Study.load(write(tmp_path, TINY.replace("[naive, joint]", "[lfl]")))
    search, store = search_of(study, Protocol()), Store(tmp_path / "store")
    for cell in search.cells():
        R = [[0.1, 0.1], [0.9, 0.1], [None, None]]
        store.write(cell, record(cell) | {"matrix": {"task_aware": R, "task_agnostic": R}}, {})
    (found,) = read(search, store)
    assert found.chosen is None


def test_the_cells_are_the_ones_that_earlier_searches_ran(tmp_path):
    """The recipe of the script that was here before, cell by cell: its stores go on serving."""
    study = Study.load(write(tmp_path, TWO))
    expected = {
        dataclasses.replace(
            cell,
            stream=dict(cell.stream) | {"validation": 0.2},
            hyperparameters=dict(cell.hyperparameters) | {f"{cell.method}_lambda": value},
        ).run_id
        for cell in study.with_selection(["lfl", "scp"], [1000]).cells()
        for value in METHODS[cell.method].hyperparameters[f"{cell.method}_lambda"].search
    }
    assert {cell.run_id for cell in search_of(study, Protocol()).cells()} == expected


def test_what_a_methods_strength_is():
    names = {"rwalk": "rwalk_lambda", "ewc_online_avalanche": "ewc_lambda", "der_avalanche": "alpha", "naive": None}
    assert {name: strength_of(name) for name in names} == names
    assert strength_of("replay_avalanche") is None
    assert strength_of("generative_replay_avalanche") is None, "three learning rates are no range of decades"


def test_several_hyper_parameters_make_a_product(tmp_path):
    study = Study.load(write(tmp_path, TINY.replace("[naive, joint]", "[naive, lfl, scp]")))
    protocol = Protocol(hyperparameters=("alpha", "scp_lambda"), grids={"scp_lambda": (1, 0.1)})
    search = search_of(study, protocol)
    assert search.methods == ("scp",)
    alphas = METHODS["scp"].hyperparameters["alpha"].search
    assert {tuple(s.values.items()) for s in search.settings} == {
        (("scp_lambda", value), ("alpha", alpha)) for value in (0.1, 1.0) for alpha in alphas
    }
    assert all(isinstance(s.cells[0].hyperparameters["scp_lambda"], float) for s in search.settings)
    store = Store(tmp_path / "store")
    for cell in search.cells():  # equal but for one bad value: the smallest strength comes first, then the other
        write_record(store, cell, 0.2 if cell.hyperparameters["alpha"] == alphas[0] else 0.5)
    (found,) = read(search, store)
    assert found.chosen.setting.values == {"scp_lambda": 0.1, "alpha": alphas[1]}
    assert found.edges == ("scp_lambda",)
    assert choose(found.tried[::-1]) is found.chosen
    assert merged_tuning(study, protocol, [found])["configurations"] == {"scp": 2 * len(alphas)}


def test_words_and_switches_can_be_searched(tmp_path):
    assert parse_grids(["mode=exact, sliced", "n=1,2", "x=0.1,1e-3", "flag=true,false"]) == {
        "mode": ("exact", "sliced"), "n": (1, 2), "x": (0.1, 1e-3), "flag": (True, False),
    }  # fmt: skip
    study = Study.load(write(tmp_path, TINY.replace("[naive, joint]", "[scp]")))
    choices = METHODS["scp"].hyperparameters["mode"].choices
    search = search_of(study, Protocol(hyperparameters=("mode",), grids={"mode": choices}))
    store = Store(tmp_path / "store")
    for cell in search.cells():
        write_record(store, cell, 0.9 if cell.hyperparameters["mode"] == choices[-1] else 0.1)
    (found,) = read(search, store)
    assert (found.chosen.setting.values, found.edges) == ({"mode": choices[-1]}, ())


@pytest.mark.parametrize("name", ["permuted", "rotated"])
def test_the_first_experiences_are_those_of_the_longer_stream(name):
    whole = StreamSpec(name, "digits", "domain", experiences=4, seed=3, validation=0.2)
    part = first_experiences(whole, 2)
    assert part.experiences == 2
    long, short = build_stream(whole), build_stream(part)
    assert len(short.train_stream) == 2
    for of in ("train_stream", "test_stream"):
        samples = [
            [torch.stack([e.dataset[i][0] for i in range(0, len(e.dataset), 40)]) for e in list(getattr(s, of))[:2]]
            for s in (long, short)
        ]
        for a, b in zip(*samples, strict=True):
            assert torch.equal(a, b)
    assert first_experiences(whole, 4) == whole


def test_given_angles_are_cut_too():
    stream = StreamSpec("rotated", "digits", "domain", angles=(0.0, 20.0, 40.0))
    assert first_experiences(stream, 2) == dataclasses.replace(stream, angles=(0.0, 20.0))


def test_fewer_experiences_stand_in_the_protocol(tmp_path, fake):
    executor = fake(lambda cell: 0.5)
    text = TINY.replace("split", "permuted").replace("scenarios: [class]", "").replace("[naive, joint]", "[lfl]")
    assert call("tune", write(tmp_path, text), "--out", tmp_path / "out", "--experiences", "3")[0] == 0
    assert {cell.stream["experiences"] for cell in executor.ran} == {3}
    after = Study.load(tmp_path / "out" / "tiny.yaml")
    assert after.stream.experiences == 5
    assert "of the first 3 experiences" in after.tuning["protocol"]
    assert after.stream.validation == 0


def test_a_real_search(tmp_path):
    """Trains: at strength 1000 LFL learns nothing after the first experience, at 0.01 it is nearly fine-tuning."""
    path, out = write(tmp_path, TWO.replace("[task, class]", "[task]")), tmp_path / "out"
    options = ("--methods", "lfl", "--grid", "lfl_lambda=1000,0.01", "--out", out)
    code, text = call("tune", path, *options)
    assert code == 0, text
    frame = collect(out).set_index("hp.lfl_lambda")
    assert list(frame["status"]) == ["done", "done"]
    assert set(frame["seed"]) == {1000}
    assert frame.loc[0.01, "accuracy"] > frame.loc[1000.0, "accuracy"] + 0.1
    assert Study.load(out / "tiny.yaml").resolved("lfl", "task") == {"lfl_lambda": 0.01}
    cell = search_of(Study.load(path), Protocol(methods=("lfl",), grids={"lfl_lambda": (0.01,)})).cells()[0]
    sizes = Store(out).record(cell.run_id)["test_sizes"]
    assert sum(sizes) == pytest.approx(0.2 * 1438, abs=10), "held-out training data, not the 359 test images"
    at = {p: p.stat().st_mtime_ns for p in out.rglob("record.json")}
    code, text = call("tune", path, *options)
    assert (code, {p: p.stat().st_mtime_ns for p in out.rglob("record.json")}) == (0, at)
    assert "2 done before, 0 to run" in text
