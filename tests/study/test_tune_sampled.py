"""Searches by Optuna's samplers: seeded, resumable, every trial a cell of the store."""

import dataclasses
import json
import math
import sys
from collections.abc import Iterator

from cl_ext.methods import METHODS
from cl_ext.report.tables.tuning import tuning_lines
from cl_ext.study import CellSpec, Study, collect, run
from cl_ext.study.executors.local import Outcome
from cl_ext.study.protocol import Protocol
from cl_ext.study.span import Span, span_of
from cl_ext.study.tune import tune

import pytest

from tests.study.helpers import TINY, write
from tests.study.search import TWO, Fake, call, peak, strength

optuna = pytest.importorskip("optuna", reason="the extra [tune]")
from optuna.storages import JournalStorage  # noqa: E402
from optuna.storages.journal import JournalFileBackend  # noqa: E402

TPE = ("--sampler", "tpe")


def tried(out) -> list[tuple]:
    """Every setting of the search with what came of it, in the order of the file."""
    content = json.loads((out / "tuning.json").read_text())
    return [(each["method"], each["scenario"], *each["values"].values(), each["accuracy"])
            for each in content["configurations"]]  # fmt: skip


def test_it_tries_as_many_settings_and_chooses_the_best(tmp_path, fake):
    executor, out = fake(peak), tmp_path / "out"
    code, text = call("tune", write(tmp_path, TWO), *TPE, "--trials", "14", "--seeds", "1000-1001", "--out", out)
    assert code == 0, text
    settings = tried(out)
    assert len(settings) == 14 * 4
    assert len(executor.ran) == 14 * 4 * 2
    assert {cell.stream["validation"] for cell in executor.ran} == {0.2}
    after = Study.load(out / "tiny.yaml")
    for method in ("lfl", "scp"):
        values = METHODS[method].hyperparameters[f"{method}_lambda"].search
        for scenario, best in (("task", 0), ("class", 1)):
            own = [value for name, where, value, _ in settings if (name, where) == (method, scenario)]
            assert all(min(values) <= value <= max(values) for value in own)
            assert len(set(own)) == 14
            chosen = after.resolved(method, scenario)[f"{method}_lambda"]
            nearest = min(abs(math.log10(value) - best) for value in own)
            assert abs(math.log10(chosen) - best) <= nearest + 0.02 + 1e-9, "of equals (0.1 points) the smallest"
    assert after.tuning["configurations"] == {"lfl": 14, "scp": 14}
    assert "14 trials by tpe (Optuna) of each method's strength" in after.tuning["protocol"]
    assert "--sampler tpe --trials 14" in (out / "tiny.yaml").read_text()


def test_tpe_looks_where_it_was_good(tmp_path, fake):
    """After its ten random trials TPE's settings are nearer to the best than random ones are."""

    def distance(sampler: str) -> float:
        fake(peak)
        study = Study.load(write(tmp_path, TINY.replace("[naive, joint]", "[scp]")))
        late = []
        for seed in (1000, 1002, 1003):
            protocol = Protocol(sampler=sampler, trials=24, seeds=(seed,))
            ((found,), _) = tune(study, protocol, tmp_path / sampler)
            late += [abs(math.log10(tried.setting.values["scp_lambda"]) - 1) for tried in found.tried[10:]]
        return sum(late) / len(late)

    assert distance("tpe") < 0.75 * distance("random")


class Stops(Fake):
    """Is interrupted when it has run so many cells in all."""

    def run(self, cells: list[CellSpec]) -> Iterator[Outcome]:
        for outcome in super().run(cells):
            if len(self.ran) == self.stop_after and outcome.status == "started":
                raise KeyboardInterrupt
            yield outcome


@pytest.mark.parametrize("stop", [0, 3, 4, 9, 13])
def test_an_interrupted_search_finds_what_an_uninterrupted_one_does(tmp_path, fake, monkeypatch, stop):
    path, options = write(tmp_path, TWO), (*TPE, "--trials", "14", "--methods", "scp", "--scenarios", "class")
    fake(peak)
    assert call("tune", path, *options, "--out", tmp_path / "whole")[0] == 0
    first = Stops(peak)
    first.stop_after = stop
    monkeypatch.setattr("cl_ext.study.runner.LocalExecutor", first)
    assert call("tune", path, *options, "--out", tmp_path / "out")[0] == 130
    assert len(first.ran) == stop
    rest = fake(peak)
    assert call("tune", path, *options, "--out", tmp_path / "out")[0] == 0
    assert len(rest.ran) == 14 - stop
    assert tried(tmp_path / "out") == tried(tmp_path / "whole")


def test_more_trials_go_on_from_fewer(tmp_path, fake):
    path, options = write(tmp_path, TWO), (*TPE, "--methods", "scp", "--scenarios", "class", "--out", tmp_path / "out")
    fake(peak)
    assert call("tune", path, *options, "--trials", "4")[0] == 0
    few = tried(tmp_path / "out")
    rest = fake(peak)
    assert call("tune", path, *options, "--trials", "12")[0] == 0
    many = tried(tmp_path / "out")
    assert (many[:4], len(many), len(rest.ran)) == (few, 12, 8)
    again = fake(peak)
    assert call("tune", path, *options, "--trials", "4")[0] == 0
    assert (tried(tmp_path / "out"), again.ran) == (few, [])


def test_other_seeds_or_ranges_are_another_search(tmp_path, fake):
    path, options = write(tmp_path, TWO), (*TPE, "--methods", "scp", "--scenarios", "class", "--out", tmp_path / "out")
    searches = []
    for more in ((), ("--seeds", "1001"), ("--grid", "scp_lambda=1,100")):
        executor = fake(peak)
        assert call("tune", path, *options, "--trials", "3", *more)[0] == 0
        assert len(executor.ran) == 3
        searches.append(tuple(strength(cell) for cell in executor.ran))
    assert len(set(searches)) == 3
    assert all(1 <= value <= 100 for value in searches[2])


def test_settings_that_diverge_are_shown_never_chosen_and_told_as_0(tmp_path, fake):
    def diverges(cell: CellSpec) -> float | str:
        return "diverged" if strength(cell) > 10 else peak(cell)

    fake(diverges)
    study = Study.load(write(tmp_path, TINY.replace("[naive, joint]", "[scp]")))
    ((found,), _) = tune(study, Protocol(sampler="tpe", trials=12), tmp_path / "out")
    states = [tried.failure for tried in found.tried]
    assert "diverged" in states
    assert found.chosen is not None
    assert found.chosen.setting.values["scp_lambda"] <= 10
    assert any("not chosen from" in line for line in tuning_lines([found]))
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "out" / "optuna.log")))
    (name,) = optuna.get_all_study_names(storage)
    told = [trial.value for trial in optuna.load_study(study_name=name, storage=storage).trials]
    assert told == [0.0 if tried.mean is None else tried.mean for tried in found.tried]


def test_words_and_whole_numbers_are_drawn_as_such(tmp_path, fake):
    executor = fake(lambda cell: 0.9 if cell.hyperparameters["mode"] == "exact" else 0.4)
    study = Study.load(write(tmp_path, TINY.replace("[naive, joint]", "[scp]")))
    modes = METHODS["scp"].hyperparameters["mode"].choices
    protocol = Protocol(hyperparameters=("mode",), grids={"mode": modes}, sampler="random", trials=6)
    ((found,), _) = tune(study, protocol, tmp_path / "out")
    assert {cell.hyperparameters["mode"] for cell in executor.ran} <= set(modes)
    assert found.edges == ()
    sizes = Protocol(hyperparameters=("mem_size",), grids={"mem_size": (20, 500)}, sampler="random", trials=6)
    study = Study.load(write(tmp_path, TINY.replace("[naive, joint]", "[er]")))
    executor = fake(lambda cell: 0.5)
    tune(study, sizes, tmp_path / "er")
    sizes = [cell.hyperparameters["mem_size"] for cell in executor.ran]
    assert all(type(size) is int and 20 <= size <= 500 for size in sizes)
    assert len(set(sizes)) > 1


@pytest.mark.parametrize(
    ("span", "value", "edge"),
    [
        (Span(1e-3, 1e3, log=True), 1e-3, True),
        (Span(1e-3, 1e3, log=True), 10**-2.71, True),  # a twentieth of six decades is 0.3
        (Span(1e-3, 1e3, log=True), 10**-2.69, False),
        (Span(1e-3, 1e3, log=True), 10**2.71, True),
        (Span(0.0, 1.0), 0.04, True),
        (Span(0.0, 1.0), 0.06, False),
        (Span(choices=("a", "b")), "b", False),
    ],
)
def test_what_an_edge_of_a_range_is(span, value, edge):
    assert span.at_edge(value) is edge


def test_the_range_that_is_told_is_what_was_drawn_from(tmp_path, fake):
    """Not the first and the last trial, nor the smallest and the largest."""
    fake(peak)
    study = Study.load(write(tmp_path, TINY.replace("[naive, joint]", "[scp]")))
    ((found,), _) = tune(study, Protocol(sampler="random", trials=4), tmp_path / "out")
    drawn = [tried.setting.values["scp_lambda"] for tried in found.tried]
    assert 0.01 < min(drawn) < max(drawn) < 1e5
    assert found.ends("scp_lambda") == (0.01, 1e5)
    (line,) = tuning_lines([dataclasses.replace(found, edges=("scp_lambda",))])
    assert line.endswith(", searched from 0.01 to 100000")


def test_what_is_drawn_from():
    assert span_of("scp", "scp_lambda", Protocol()) == Span(0.01, 1e5, log=True)
    assert span_of("scp", "scp_lambda", Protocol(grids={"scp_lambda": (5, 2)})) == Span(2.0, 5.0)
    assert span_of("scp", "scp_lambda", Protocol(grids={"scp_lambda": (0, 5)})) == Span(0.0, 5.0)
    assert span_of("scp", "scp_lambda", Protocol(grids={"scp_lambda": (3,)})) == Span(choices=(3.0,))
    assert Span(0.01, 1e5).rounded(0.0123456) == 0.0123
    assert Span(0.01, 1e5).rounded(0.009999) == 0.01


def test_without_optuna_there_is_one_sentence(tmp_path, fake, monkeypatch):
    executor = fake(peak)
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "cl_ext.study.sampled", raising=False)
    code, text = call("tune", write(tmp_path, TWO), *TPE, "--out", tmp_path / "out")
    assert (code, executor.ran) == (2, [])
    assert "Optuna's, which is not installed; `pip install cl_ext[tune]` brings it" in text


def test_the_frame_of_a_later_run_says_it(tmp_path, fake):
    fake(peak)
    assert call("tune", write(tmp_path, TWO), *TPE, "--trials", "5", "--out", tmp_path / "out")[0] == 0
    fake(lambda cell: 0.5)
    run(Study.load(tmp_path / "out" / "tiny.yaml"), tmp_path / "runs")
    frame = collect(tmp_path / "runs").groupby("method").first()
    assert frame.loc[["lfl", "scp"], "tuning_configurations"].tolist() == [5, 5]
    assert frame.loc["lfl", "tuning_protocol"].startswith("end-of-stream: 5 trials by tpe (Optuna)")


def test_every_trial_is_a_cell_of_the_store(tmp_path):
    """Trains: two trials of LFL on real cells."""
    path = write(tmp_path, TINY.replace("[naive, joint]", "[lfl]").replace("experiences: 5", "experiences: 2"))
    code, text = call("tune", path, *TPE, "--trials", "2", "--out", tmp_path / "out")
    assert code == 0, text
    frame = collect(tmp_path / "out")
    assert frame["status"].tolist() == ["done", "done"]
    assert sorted(frame["hp.lfl_lambda"]) == sorted(value for _, _, value, _ in tried(tmp_path / "out"))
