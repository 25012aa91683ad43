"""Every row in every scenario: it runs, it is not Naive in disguise, watching it changes nothing, its limit holds."""

import math

from cl_ext.methods import METHODS, Budget
from cl_ext.models import NetworkSpec

import pytest

from tests.methods.helpers import BUDGET, make, run, same, tiny_stream

NAMES = METHODS.own_names
CASES = [(name, scenario) for name in NAMES for scenario in METHODS[name].scenarios]
AVALANCHE = [name for name in NAMES if METHODS[name].source == "avalanche" and not METHODS[name].reference]


@pytest.mark.parametrize(("name", "scenario"), CASES)
def test_runs_differs_from_naive_and_bears_watching(name: str, scenario: str) -> None:
    """One run alone and one evaluated at each epoch with its FLOPs counted are bit-equal, hence so are two runs."""
    method = METHODS[name]
    alone, watched = run(name, scenario), run(name, scenario, watched=True)
    assert same(alone.weights, watched.weights)
    assert alone.built.extra_bytes() == watched.built.extra_bytes()
    assert watched.flops is not None
    assert watched.flops > 0
    aware, agnostic = watched.rows[-1]
    assert all(0 <= accuracy <= 1 for accuracy in aware)
    assert sum(aware) > 0
    assert all(math.isnan(accuracy) == method.needs_task_label for accuracy in agnostic)
    assert (watched.built.extra_bytes() > 0) == (not method.stores.startswith("nothing"))
    if name != "naive":
        assert not same(alone.weights, run("naive", scenario).weights)


@pytest.mark.parametrize("name", [name for name in AVALANCHE if METHODS[name].needs_task_label is False])
def test_differs_from_naive_after_two_experiences(name: str) -> None:
    stream = tiny_stream("class", experiences=2)
    assert not same(run(name, "class", benchmark=stream).weights, run("naive", "class", benchmark=stream).weights)


@pytest.mark.parametrize("name", [name for name in NAMES if METHODS[name].limit is not None])
def test_limit_holds_bit_for_bit(name: str) -> None:
    method = METHODS[name]
    assert method.limit is not None
    given, reference = method.limit
    for scenario in method.scenarios:
        assert same(run(name, scenario, dict(given)).weights, run(reference, scenario).weights), scenario


def test_packnet_without_pruning_is_naive_on_its_first_experience() -> None:
    stream = tiny_stream("task", experiences=1)
    packed = run("packnet_avalanche", "task", {"prune_proportion": 0.0}, benchmark=stream).weights
    naive = run("naive", "task", benchmark=stream).weights
    for name, tensor in naive.items():
        (match,) = (packed[key] for key in packed if _plain(key) == name)
        assert match.equal(tensor), name


def _plain(key: str) -> str:
    return key.replace(".wrappee", "").replace(".linear", "")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "network", [NetworkSpec("cnn", width=2), NetworkSpec("resnet18", width=2)], ids=lambda n: n.name
)
def test_convolutional_networks(name: str, network: NetworkSpec) -> None:
    method = METHODS[name]
    scenario = "class" if "class" in method.scenarios else "task"
    stream = tiny_stream(scenario, experiences=2, samples=32)
    budget = Budget(lr=0.05, epochs=2, batch_size=16)
    refused = (
        name == "pnn_avalanche"
        or (name in ("packnet_avalanche", "cpg", "pae") and network.name == "resnet18")
        or network.name not in method.networks
    )
    if refused:
        with pytest.raises(ValueError, match=name):
            make(name, scenario, network=network, benchmark=stream)
        return
    result = run(name, scenario, {}, network=network, budget=budget, benchmark=stream, watched=True)
    assert any(accuracy >= 0 for accuracy in result.rows[-1][0])


@pytest.mark.parametrize("name", NAMES)
def test_growing_head(name: str) -> None:
    scenario = "class" if "class" in METHODS[name].scenarios else "task"
    growing = NetworkSpec("mlp", hidden=(12, 12), head="growing")
    if "growing" not in METHODS[name].heads and name != "pnn_avalanche":
        with pytest.raises(ValueError, match=f"{name} can't follow a growing head"):
            make(name, scenario, network=growing)
        return
    result = run(name, scenario, network=growing, watched=True)
    assert all(0 <= accuracy <= 1 for accuracy in result.rows[-1][0])
    if name not in ("joint", "joint_incremental"):  # they are given all experiences at once
        assert any(math.isnan(accuracy) for accuracy in result.rows[1][0]) or name == "separate"


@pytest.mark.parametrize("name", NAMES)
def test_flat_samples_adam_and_the_loss_over_seen_classes(name: str) -> None:
    scenario = "class" if "class" in METHODS[name].scenarios else "task"
    stream = tiny_stream(scenario, experiences=2, shape=(20,))
    budget = Budget(optimizer="adam", lr=0.01, epochs=2, batch_size=16, loss="seen")
    result = run(name, scenario, budget=budget, benchmark=stream)
    assert any(accuracy >= 0 for accuracy in result.rows[-1][0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("samples", [33, 6])
def test_a_last_batch_of_one_and_an_experience_below_a_batch(name: str, samples: int) -> None:
    scenario = "class" if "class" in METHODS[name].scenarios else "task"
    stream = tiny_stream(scenario, samples=samples)
    budget = Budget(lr=0.01, epochs=2, batch_size=16)
    if name == "bic" and samples == 6:
        with pytest.raises(ValueError, match="aside"):
            run(name, scenario, budget=budget, benchmark=stream)
        return
    assert any(accuracy >= 0 for accuracy in run(name, scenario, budget=budget, benchmark=stream).rows[-1][0])


@pytest.mark.parametrize(
    ("name", "given", "word"),
    [
        ("gem_avalanche", {"mem_size": 2}, "mem_size"),
        ("agem_avalanche", {"mem_size": 2}, "mem_size"),
        ("gem", {"mem_size": 2}, "mem_size"),
        ("agem", {"mem_size": 2}, "mem_size"),
        ("gss", {"mem_size": 20}, "mem_size"),
        ("bic", {"mem_size": 50}, "mem_size"),
        ("mir", {"subsample": 4}, "subsample"),
    ],
)
def test_impossible_settings_are_one_sentence(name: str, given: dict[str, int], word: str) -> None:
    with pytest.raises(ValueError, match=word) as caught:
        make(name, "class", given)
    assert "\n" not in str(caught.value)


def test_networks_and_budgets_that_a_row_cannot_use() -> None:
    with pytest.raises(ValueError, match=r"budget\.epochs"):
        make("packnet_avalanche", "task", budget=Budget(epochs=1))
    with pytest.raises(ValueError, match="equally many units"):
        make("pnn_avalanche", "task", network=NetworkSpec("mlp", hidden=(12, 8)))
    with pytest.raises(ValueError, match="hidden layers"):
        make("lfl", "class", network=NetworkSpec("mlp", hidden=()))


def test_weight_decay_and_momentum() -> None:
    budget = Budget(lr=BUDGET.lr, momentum=0.9, weight_decay=1e-3, epochs=2, batch_size=16)
    for name in ("pnn_avalanche", "packnet_avalanche", "cwr_star", "gem_avalanche"):
        scenario = "class" if "class" in METHODS[name].scenarios else "task"
        assert all(accuracy >= 0 for accuracy in run(name, scenario, budget=budget).rows[-1][0])
