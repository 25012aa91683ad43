"""The named protocols: what each may look at, what it writes, and that a frame says where the values came from."""

import dataclasses
import re

from cl_ext.methods import METHODS
from cl_ext.methods.criterion import ScenarioCrossEntropy
from cl_ext.streams import StreamSpec, build_stream
from cl_ext.study import CellSpec, Study, StudyError, collect, run
from cl_ext.study.cell import run_cell
from cl_ext.study.origins import tuning_of
from cl_ext.study.protocol import Protocol, first_experiences
from cl_ext.study.transfer import fixed, transferred
from cl_ext.study.tune import search_of

import numpy as np
import pytest
import torch

from tests.study.helpers import write
from tests.study.search import TWO, call, peak


def samples(benchmark, stream: str, count: int) -> list[tuple[torch.Tensor, list[int]]]:
    """Some samples of the first experiences, and all their labels."""
    experiences = list(getattr(benchmark, stream))[:count]
    return [
        (torch.stack([e.dataset[i][0] for i in range(0, len(e.dataset), 20)]), [int(y) for y in e.dataset.targets])
        for e in experiences
    ]


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
@pytest.mark.parametrize("order", ["fixed", "seed"])
def test_the_first_experiences_of_a_split_stream_are_those_of_the_whole(scenario, order):
    whole = StreamSpec("split", "digits", scenario, experiences=5, class_order=order, seed=3, validation=0.2)
    part = first_experiences(whole, 2)
    assert (part.experiences, part.first) == (5, 2)
    long, short = build_stream(whole), build_stream(part)
    assert len(short.train_stream) == len(short.test_stream) == 2
    for stream in ("train_stream", "test_stream"):
        for (x, y), (x2, y2) in zip(samples(long, stream, 2), samples(short, stream, 2), strict=True):
            assert torch.equal(x, x2)
            assert y == y2


def test_a_concat_stream_keeps_its_images_size(tmp_path):
    """The second set is of larger images; alone, the first would not be brought to their size."""
    for name, side in (("small", 8), ("large", 16)):
        x = np.random.RandomState(side).randint(0, 255, (12, side, side), dtype=np.uint8)
        y = np.arange(12) % 2
        np.savez(tmp_path / f"{name}.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    sets = tuple(str(tmp_path / f"{name}.npz") for name in ("small", "small", "large"))
    part = first_experiences(StreamSpec("concat", sets, "class"), 2)
    built = build_stream(part)
    assert len(built.train_stream) == 2
    assert tuple(built.train_stream[0].dataset[0][0].shape) == (1, 16, 16)
    assert built.outputs == 6


def whole_and_part(method: str, scenario: str, stream: dict, **values: object) -> tuple[dict, dict]:
    """Trains on a stream and on its beginning."""
    cell = CellSpec(
        stream=stream, scenario=scenario, network={"name": "mlp", "hidden": [16], "head": "full", "bias": True},
        budget={"optimizer": "sgd", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "batch_size": 32, "epochs": 1,
                "online": False, "reset_optimizer": False, "loss": "all"},
        evaluation="experience", device="cpu", method=method, revision=METHODS[method].revision,
        hyperparameters=METHODS[method].resolve(values),
    )  # fmt: skip
    return run_cell(cell), run_cell(dataclasses.replace(cell, stream=stream | {"first": 3}))


def check_beginning(whole: dict, part: dict) -> None:
    """Bit for bit: the same network, whose head has the classes of the whole stream, the same batches."""
    assert whole["status"] == part["status"] == "done", (whole["error"], part["error"])
    for which in ("task_aware", "task_agnostic"):
        R, beginning = (np.array(record["matrix"][which], dtype=float) for record in (whole, part))
        assert beginning.shape == (4, 3)
        assert np.array_equal(R[:4, :3], beginning, equal_nan=True)
    assert part["costs"]["parameters"] == whole["costs"]["parameters"]


@pytest.mark.parametrize("scenario", ["class", "task", "domain"])
@pytest.mark.parametrize(
    ("method", "values", "order"),
    [
        ("naive", {}, "fixed"), ("naive", {}, "seed"), ("lwf", {}, "fixed"), ("lwf", {}, "seed"), ("ebll", {}, "seed"),
        ("der", {"mem_size": 100}, "seed"), ("generative_replay", {"generator_iterations": 5}, "seed"),
        ("mas", {"mas_lambda": 0.01}, "seed"),
    ],
)  # fmt: skip
def test_a_run_on_the_first_experiences_is_the_beginning_of_the_whole_run(method, values, order, scenario):
    """Also where the loss is over a task's classes, and where a teacher or a memory asks it which those are."""
    stream = {"name": "split", "dataset": "digits", "experiences": 5, "class_order": order, "angles": None,
              "validation": 0.2}  # fmt: skip
    check_beginning(*whole_and_part(method, scenario, stream, **values))


@pytest.mark.parametrize("scenario", ["class", "task"])
@pytest.mark.parametrize("method", ["naive", "lwf"])
def test_the_beginning_of_a_concat_stream_too(tmp_path, monkeypatch, scenario, method):
    monkeypatch.chdir(tmp_path)
    for name in "abcd":
        x, y = np.random.RandomState(ord(name)).randint(0, 255, (60, 6, 6), dtype=np.uint8), np.arange(60) % 3
        np.savez(tmp_path / f"{name}.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    stream = {"name": "concat", "dataset": [str(tmp_path / f"{name}.npz") for name in "abcd"]}
    check_beginning(*whole_and_part(method, scenario, stream))


def test_the_loss_of_a_beginning_is_that_of_the_whole():
    """Against the whole stream's table; a loss over all classes, which the cut is not to become, is another."""
    tasks = [[3, 0], [5, 2], [1, 4], [6, 9], [7, 8]]
    whole, part = ScenarioCrossEntropy(tasks), ScenarioCrossEntropy(tasks[:2])
    phi = torch.randn(8, 10, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([3, 0, 5, 2, 2, 5, 0, 3])
    assert torch.equal(whole.excluded(y, 10), part.excluded(y, 10))
    assert torch.equal(whole(phi, y), part(phi, y))
    assert not torch.isclose(part(phi, y), torch.nn.functional.cross_entropy(phi, y))
    assert torch.equal(part(phi[:, :6], y), whole(phi[:, :6], y)), "a head that has not grown so far"


def test_a_stream_that_is_not_cut_keeps_its_cells_ids(tmp_path):
    study = Study.load(write(tmp_path))
    assert all("first" not in cell.stream for cell in study.cells())
    assert study.stream_fields() == dataclasses.replace(
        study, stream=dataclasses.replace(study.stream, first=None)
    ).stream_fields()  # fmt: skip
    with pytest.raises(ValueError, match="first is 6, but the stream has 5 experiences"):
        dataclasses.replace(study.stream, first=6).validate()


def test_first_experiences_of_a_split_stream(tmp_path, fake):
    executor = fake(peak)
    code, text = call("tune", write(tmp_path, TWO), "--out", tmp_path / "out", "--protocol", "first-experiences")
    assert code == 0, text
    assert {(cell.stream["experiences"], cell.stream["first"]) for cell in executor.ran} == {(5, 3)}
    after = Study.load(tmp_path / "out" / "tiny.yaml")
    assert after.stream == Study.load(write(tmp_path, TWO)).stream
    assert after.tuning["protocol"].startswith("first-experiences: grid of each method's strength")
    assert "of the training data of the first 3 experiences, held out" in after.tuning["protocol"]


def test_every_protocol_stands_in_the_frame_of_a_later_run(tmp_path, fake):
    """Study by study: what was chosen how, with how many settings, on which seeds."""
    path = write(tmp_path, TWO + "values: {scp: {scp_lambda: 3}}\n")
    fake(lambda cell: 0.5)
    expected = {
        "end-of-stream": ((), {"lfl": 7, "scp": 8}, "1000"),
        "first-experiences": (("--experiences", "2"), {"lfl": 7, "scp": 8}, "1000"),
        "fixed": ((), {"lfl": 0, "scp": 0}, ""),
    }
    for name, (options, counts, seeds) in expected.items():
        out = tmp_path / name
        assert call("tune", path, "--protocol", name, *options, "--out", out)[0] == 0
        run(Study.load(out / "tiny.yaml"), out / "runs")
        frame = collect(out / "runs").groupby("method").first()
        assert frame.loc[["lfl", "scp"], "tuning_configurations"].to_dict() == counts, name
        assert frame.loc[["lfl", "scp"], "tuning_seeds"].tolist() == [seeds, seeds]
        assert frame.loc[["lfl", "scp"], "tuning_protocol"].str.startswith(name).all()
        assert np.isnan(frame.loc["naive", "tuning_configurations"])
    assert frame["tuning_protocol"].to_dict() | {"naive": None} == {
        "naive": None, "lfl": "fixed: the row's defaults", "scp": "fixed: the study's values",
    }  # fmt: skip


def test_fixed_runs_nothing_and_keeps_the_values(tmp_path, fake):
    executor, path = fake(peak), write(tmp_path, TWO + "values: {scp: {scp_lambda: 3}}\n")
    assert call("tune", path, "--protocol", "fixed", "--out", tmp_path / "out")[0] == 0
    assert executor.ran == []
    before, after = Study.load(path), Study.load(tmp_path / "out" / "tiny.yaml")
    assert after.cells() == before.cells()
    assert "# Tuned by: cl-ext tune" in (tmp_path / "out" / "tiny.yaml").read_text()


def test_fixed_leaves_what_was_tuned_of_other_methods(tmp_path):
    tuned = "tuning: {protocol: by eye, configurations: {lfl: 5}, seeds: [7]}\nvalues: {lfl: {lfl_lambda: 3}}\n"
    given = fixed(Study.load(write(tmp_path, TWO + tuned)), ["scp"])
    assert given.tuning == {
        "protocol": {"scp": "fixed: the row's defaults", "lfl": "by eye"},
        "configurations": {"scp": 0, "lfl": 5},
        "seeds": {"scp": [], "lfl": [7]},
    }


def test_fixed_keeps_how_values_were_found(tmp_path):
    """Values that were tuned do not become values of which nothing was tried by being fixed."""
    tuned = (
        "tuning: {protocol: by grid, configurations: {lfl: {task: 11}}, seeds: [1000, 1001]}\n"
        "values: {lfl: {lfl_lambda: {task: 3, class: 1}}}\n"
    )
    study = Study.load(write(tmp_path, TWO + tuned))
    given = fixed(study)
    assert given.values == study.values
    assert tuning_of(given.tuning, "lfl", "task") == {
        "protocol": "fixed: by grid", "configurations": 11, "seeds": [1000, 1001],
    }  # fmt: skip
    none = {"configurations": 0, "seeds": []}
    assert tuning_of(given.tuning, "lfl", "class") == none | {"protocol": "fixed: the study's values"}
    assert tuning_of(given.tuning, "scp", "task") == none | {"protocol": "fixed: the row's defaults"}
    again = fixed(dataclasses.replace(study, tuning=given.tuning))
    assert again.tuning == given.tuning, "fixed twice is fixed once"


def test_fixed_defaults_are_not_what_one_protocol_for_all_says(tmp_path):
    """A protocol without names is that of the values that the study sets, not of defaults."""
    tuned = "tuning: {protocol: by eye, seeds: [7]}\nvalues: {lfl: {lfl_lambda: 3}}\n"
    given = fixed(Study.load(write(tmp_path, TWO + tuned)))
    assert tuning_of(given.tuning, "lfl", "task")["protocol"] == "fixed: by eye"
    assert tuning_of(given.tuning, "scp", "task") == {
        "protocol": "fixed: the row's defaults", "configurations": 0, "seeds": [],
    }  # fmt: skip


SOURCE = """\
study: other
version: 2
stream: {name: permuted, dataset: digits, experiences: 3}
scenarios: [domain, class]
seeds: 0-1
methods: [naive, lfl, scp]
tuning: {protocol: by grid, configurations: {lfl: 7}, seeds: [50]}
values: {lfl: {lfl_lambda: {class: 0.2, domain: 4}}, scp: {scp_lambda: 9}}
"""


def test_transfer_takes_the_values_of_equal_scenarios(tmp_path):
    study = Study.load(write(tmp_path, TWO + "values: {lfl: {lfl_lambda: 1}, scp: {scp_lambda: 3}}\n"))
    given = transferred(study, Study.load(write(tmp_path, SOURCE, "other.yaml")))
    assert given.values == {"lfl": {"lfl_lambda": {"task": 1, "class": 0.2}}, "scp": {"scp_lambda": 3}}
    how = "transfer from other, version 2 (permuted digits): by grid"
    assert given.tuning == {"protocol": how, "configurations": {"lfl": {"class": 7}}, "seeds": [50]}
    assert tuning_of(given.tuning, "lfl", "task")["protocol"] is None, "the study's own value, of which it says nothing"
    assert given.lines == (
        "lfl: other has no task-incremental values; the study keeps what it had there",
        "the study keeps what it had, because other was not tuned for it: scp",
    )


def test_transfer_takes_only_what_was_tuned(tmp_path):
    """The other study has class-incremental values that nobody tuned, and none task-incremental."""
    study = Study.load(write(tmp_path, TWO + "values: {lfl: {lfl_lambda: 1}}\n"))
    text = SOURCE.replace("[domain, class]", "[domain, class, task]")
    text = text.replace("permuted", "split").replace("experiences: 3", "experiences: 5")
    counted = text.replace("{lfl: 7}", "{lfl: {domain: 7}}")
    with pytest.raises(StudyError, match="other has no tuned values"):
        transferred(study, Study.load(write(tmp_path, counted, "other.yaml")))
    given = transferred(study, Study.load(write(tmp_path, text.replace("{lfl: 7}", "{lfl: {class: 7}}"), "other.yaml")))
    assert given.values["lfl"] == {"lfl_lambda": {"task": 1, "class": 0.2}}
    assert given.lines[0] == "lfl: other has no tuned task-incremental values; the study keeps what it had there"
    assert given.tuning["configurations"] == {"lfl": {"class": 7}}


def test_transfer_on_the_command_line(tmp_path, fake):
    executor, source = fake(lambda cell: 0.5), write(tmp_path, SOURCE, "other.yaml")
    code, text = call("tune", write(tmp_path, TWO), "--from", source, "--out", tmp_path / "out")
    assert (code, executor.ran) == (0, []), text
    assert "because other was not tuned for it: scp" in text
    after = Study.load(tmp_path / "out" / "tiny.yaml")
    assert (after.resolved("lfl", "class"), after.resolved("lfl", "task")["lfl_lambda"] == 0.2) == (
        {"lfl_lambda": 0.2}, False,
    )  # fmt: skip
    run(after, tmp_path / "runs")
    frame = collect(tmp_path / "runs")
    assert frame.loc[frame["scenario"] == "task", "tuning_protocol"].isna().all()
    frame = frame.groupby("method").first()
    assert frame.loc["lfl", "tuning_protocol"].startswith("transfer from other, version 2")
    assert (frame.loc["lfl", "tuning_seeds"], frame.loc["lfl", "tuning_configurations"]) == ("50", 7)
    assert frame["tuning_protocol"].isna()[["naive", "scp"]].all()


def test_transfer_refuses_values_that_were_tuned_on_reported_data(tmp_path):
    study = Study.load(write(tmp_path, TWO))
    tuned = "tuning: {protocol: by grid, configurations: {lfl: 7}, seeds: [1, 50]}\nvalues: {lfl: {lfl_lambda: 2}}\n"
    source = Study.load(write(tmp_path, TWO.replace("tiny", "same").replace("0-1", "7-8") + tuned, "same.yaml"))
    with pytest.raises(StudyError, match="lfl was tuned on seed 1 of the same stream, and the study reports that seed"):
        transferred(study, source)
    other_data = dataclasses.replace(source, stream=dataclasses.replace(source.stream, class_order="seed"))
    assert transferred(study, other_data).values == {"lfl": {"lfl_lambda": 2}}


def test_transfer_of_nothing_is_refused(tmp_path):
    untuned = Study.load(write(tmp_path, SOURCE.replace("tuning:", "# tuning:"), "other.yaml"))
    with pytest.raises(StudyError, match=re.escape("other has no tuned values of this study's methods")):
        transferred(Study.load(write(tmp_path, TWO)), untuned)


def test_a_search_never_sees_test_data_or_a_reported_seed(tmp_path):
    study = Study.load(write(tmp_path, TWO))
    for protocol in (Protocol(), Protocol(experiences=3)):
        cells = search_of(study, protocol).cells()
        assert {cell.seed for cell in cells}.isdisjoint(study.seeds)
        assert all(cell.stream["validation"] == 0.2 for cell in cells)


def test_the_command_has_the_very_values():
    said = Protocol(validation=1 / 3, grids={"si_lambda": (0.1234567, 1e-5, 100.0)}).command("s.yaml")
    assert f"--validation {1 / 3!r}" in said
    assert "si_lambda=0.1234567,1e-05,100" in said
    assert "--validation 0.2" in Protocol().command("s.yaml")
