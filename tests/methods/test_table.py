"""The table itself: names, values, foreign rows; nothing here trains."""

import math
import subprocess
import sys
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path

from cl_ext.methods import METHODS, HyperParameter, Method, UnknownMethodError, method, strength
from cl_ext.methods.method import MethodTable
from cl_ext.methods.table_avalanche import AVALANCHE_ROWS

import pytest

ISSUE = (
    "naive", "joint", "joint_incremental", "cumulative", "separate", "from_scratch", "replay_avalanche",
    "ewc_avalanche", "ewc_online_avalanche", "si_avalanche", "mas_avalanche", "rwalk_avalanche", "lwf_avalanche",
    "lfl", "gem_avalanche", "agem_avalanche", "gdumb", "der_avalanche", "derpp_avalanche", "er_ace", "mir", "icarl",
    "bic", "gss", "cwr_star", "generative_replay_avalanche", "pnn_avalanche", "packnet_avalanche",
)  # fmt: skip


def test_has_the_rows_that_were_promised() -> None:
    assert set(ISSUE) <= set(METHODS.own_names)


@pytest.mark.parametrize("name", METHODS.own_names)
def test_row_says_what_it_is(name: str) -> None:
    row = METHODS[name]
    assert row.name == name
    assert row.paper
    assert row.stores
    assert set(row.scenarios) <= {"task", "domain", "class"}
    assert not row.needs_task_label or row.scenarios == ("task",)
    module, _, function = row.build.partition(":")
    assert callable(getattr(import_module(module), function))
    assert row.resolve({}) == {key: value.default for key, value in row.hyperparameters.items()}
    for text in (*row.mends, *row.faults):
        assert len(text) < 140
        assert not text.endswith(".")


@pytest.mark.parametrize("name", METHODS.own_names)
def test_search_ranges(name: str) -> None:
    for key, parameter in METHODS[name].hyperparameters.items():
        assert parameter.note, key
        assert len(parameter.search) >= 2 or parameter.choices, key
        for value in parameter.search:
            assert parameter.check(key, value) == value
        if key.endswith("_lambda"):
            assert math.log10(max(parameter.search) / min(parameter.search)) >= 6, key


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("generative_replay_avalanch", "generative_replay_avalanche"),
        ("pacnet_avalanche", "packnet_avalanche"),
        ("er-ace", "er_ace"),
        ("Naive", "naive"),
    ],
)
def test_unknown_name_suggests_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UnknownMethodError, match=f"did you mean '{near}'"):
        METHODS[name]
    assert name not in METHODS


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("gdumb", {"mem": 3}, "mem is no hyper-parameter of gdumb; it has mem_size"),
        ("naive", {"lr": 0.1}, "lr is no hyper-parameter of naive; it has none"),
        ("gdumb", {"mem_size": 0}, "mem_size is 0; it takes a whole number of at least 1"),
        ("gdumb", {"mem_size": 2.5}, "mem_size is 2.5; it takes a whole number"),
        ("gdumb", {"mem_size": True}, "mem_size is True; it takes a whole number"),
        ("mas_avalanche", {"alpha": 2}, "alpha is 2.0; it takes a number from 0 to 1"),
        ("ewc_avalanche", {"ewc_lambda": "big"}, "ewc_lambda is 'big'; it takes a number"),
        ("ewc_avalanche", {"ewc_lambda": float("nan")}, "ewc_lambda is nan; it takes a number of at least 0"),
        ("pnn_avalanche", {"adapter": "conv"}, "adapter is 'conv'; it can be one of mlp, linear"),
    ],
)
def test_bad_values_are_one_sentence(name: str, given: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        METHODS[name].resolve(given)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_number_may_be_written_as_an_integer() -> None:
    value = METHODS["ewc_avalanche"].resolve({"ewc_lambda": 10})["ewc_lambda"]
    assert value == 10.0
    assert isinstance(value, float)


def test_strength_spans_its_decades() -> None:
    assert strength(1.0, -2, 4, "a note").search == (0.01, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4)


FOREIGN = Method("foreign", source="theirs", paper="a paper", build="somewhere:build", hyperparameters={})
WRONG = HyperParameter(1)


@pytest.fixture
def foreign_rows(monkeypatch: pytest.MonkeyPatch) -> MethodTable:
    """A table beside two entry points of a third party, one of them wrong."""
    points = [
        EntryPoint("foreign", f"{__name__}:FOREIGN", "cl_ext.methods"),
        EntryPoint("wrong", f"{__name__}:WRONG", "cl_ext.methods"),
        EntryPoint("naive", f"{__name__}:FOREIGN", "cl_ext.methods"),
    ]
    monkeypatch.setattr(method, "entry_points", lambda group: points if group == "cl_ext.methods" else [])
    return MethodTable((METHODS["naive"],))


def test_rows_of_entry_points_appear(foreign_rows: MethodTable) -> None:
    assert list(foreign_rows) == ["naive", "foreign", "wrong"]
    assert len(foreign_rows) == 3
    assert "foreign" in foreign_rows
    assert foreign_rows["foreign"] is FOREIGN
    assert foreign_rows.own_names == ("naive",)
    assert foreign_rows["naive"] is METHODS["naive"]  # a name never changes its meaning
    assert foreign_rows["foreign"].origin == "theirs"


def test_an_entry_point_that_is_no_method_is_one_sentence(foreign_rows: MethodTable) -> None:
    with pytest.raises(UnknownMethodError, match=r"must be a cl_ext\.methods\.Method named 'wrong'"):
        foreign_rows["wrong"]


def test_the_table_needs_no_torch() -> None:
    code = (
        "import sys; from cl_ext.methods import METHODS; list(METHODS); [METHODS[n].resolve({}) for n in METHODS];"
        "print([m for m in ('torch', 'avalanche', 'torchvision', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("row", AVALANCHE_ROWS, ids=lambda row: row.name)
def test_the_page_says_what_the_row_says(row: Method) -> None:
    page = (Path(__file__).parents[2] / "docs" / "methods" / "avalanche.md").read_text()
    _, _, rest = page.partition(f"\n## {row.name}\n")
    section = " ".join(rest.partition("\n## ")[0].split())  # its lines are wrapped
    for text in (row.paper, *row.mends, *row.faults, *row.hyperparameters):
        assert text in section
