"""Expandable networks: what becomes one, heads made in training only, task labels, states, and their capacity."""

from typing import Any

from cl_ext.models import NetworkSpec, build_network
from cl_ext.models.expansion import ExpandableNetwork, expandable
from cl_ext.nn.capacity import capacity, unit_use

import pytest
import torch
from torch import nn

from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")


def _trained(kind: str = "nc-tasks", **options: Any) -> ExpandableNetwork:
    model: Any = common.run([], lambda: expandable(common.mlp()), kind, **options).model
    return model


def test_the_network_is_copied_and_its_classifier_begins_every_head() -> None:
    model = common.mlp()
    made = expandable(model)
    made.heads.add(0, [3, 5])
    x = torch.randn(4, common.FEATURES)
    assert torch.allclose(made(x, 0)[:, [3, 5]], model(x)[:, [3, 5]], atol=1e-6)
    with torch.no_grad():
        made.features[0].weight.zero_()  # type: ignore[index]
    assert model[0].weight.abs().sum() > 0  # type: ignore[index]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(3, 4), "not a Linear"),
        (nn.Sequential(nn.Linear(3, 4)), "not a Sequential"),
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU()), "linear classifier of a fixed size.* ReLU"),
        (common.Growing(), "not a Growing"),
        (nn.Sequential(nn.LSTM(3, 4), nn.Linear(4, 2)), "'0' is a LSTM"),
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), "hidden layer"),
    ],
)
def test_what_cannot_become_one_is_refused_in_a_sentence(model: nn.Module, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        expandable(model)
    with pytest.raises(TypeError, match="expandable already"):
        expandable(expandable(common.mlp()))


def test_a_growing_head_is_refused() -> None:
    with pytest.raises(TypeError, match="fixed size"):
        expandable(build_network(NetworkSpec("mlp", head="growing"), (1, 8, 8), 4))


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet18"])
def test_the_studies_networks_become_ones(name: str) -> None:
    spec = NetworkSpec(name) if name == "mlp" else NetworkSpec(name, width=2)
    network = build_network(spec, (3, 8, 8), 6).eval()
    made = expandable(network).eval()
    made.heads.add(1, range(6))
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(made(x, 1), network(x))
    if name == "resnet18":
        with pytest.raises(TypeError, match="BasicBlock"):
            _ = made.stages
    else:
        assert [stage.units for stage in made.stages] == ([100, 100] if name == "mlp" else [2, 4, 128])


def test_naive_trains_it_with_a_head_a_task_and_evaluation_makes_none() -> None:
    model = expandable(common.mlp())
    runner = common.strategy(model, [])
    stream = common.benchmark("nc-tasks")
    runner.train(stream.train_stream[0])
    runner.eval(stream.test_stream)
    assert model.tasks == [0]
    assert bool((model(torch.randn(2, common.FEATURES), 3) == float("-inf")).all())
    runner.train(stream.train_stream[1])
    assert model.tasks == [0, 1]
    assert model.heads[1].classes.tolist() == [2, 3]
    own = {id(parameter) for parameter in runner.optimizer.param_groups[0]["params"]}
    assert {id(parameter) for parameter in model.parameters()} == own


def test_one_head_serves_a_stream_with_one_label() -> None:
    model = _trained("nc")
    assert model.tasks == [0]
    assert model.heads[0].classes.tolist() == list(range(common.CLASSES))


def test_mixed_batches_give_each_sample_its_tasks_logits() -> None:
    model = _trained().eval()
    x, labels = torch.randn(9, common.FEATURES), torch.tensor([2, 0, 1, 0, 2, 2, 3, 1, 7])
    mixed = model(x, labels)
    for row, task in enumerate(labels.tolist()):
        alone = model(x[row : row + 1], task)[0]
        assert torch.allclose(mixed[row], alone, atol=1e-6)
    assert torch.equal(model(x, torch.full((9,), 2)), model(x, 2))


def test_without_task_labels_it_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match="needs the task labels"):
        expandable(common.mlp())(torch.randn(2, common.FEATURES), None)


def test_a_saved_network_answers_in_a_fresh_one() -> None:
    model, fresh = _trained().eval(), expandable(common.mlp()).eval()
    fresh.load_state_dict(model.state_dict())
    x = torch.randn(3, common.FEATURES)
    for task in range(common.EXPERIENCES):
        assert torch.equal(model(x, task), fresh(x, task))


def test_an_unknown_scheme_is_refused_in_a_sentence() -> None:
    model = expandable(common.mlp())
    state = model.state_dict()
    state["_extra_state"] = torch.tensor(list(b'{"scheme": "mystery"}'), dtype=torch.uint8)
    with pytest.raises(ValueError, match="'mystery'; the known ones are shared"):
        model.load_state_dict(state)


def test_capacity_is_the_count_by_hand() -> None:
    model = _trained()
    with torch.no_grad():
        model.features[0].weight[:3] = 0  # type: ignore[index]
    total = used = 0
    for parameter in model.parameters():
        for value in parameter.flatten().tolist():
            total += 1
            used += value != 0
    counts = capacity([model])
    assert (counts["parameters"], counts["nonzero"]) == (total, used)
    shared = sum(value != 0 for p in model.features.parameters() for value in p.flatten().tolist())
    for task in range(common.EXPERIENCES):
        head = sum(value != 0 for p in model.heads[task].parameters() for value in p.flatten().tolist())
        assert counts["by_task"][str(task)] == shared + head
    assert capacity([common.mlp()]) == {"parameters": 248, "nonzero": 248, "by_task": {}}


def test_unit_use_is_the_share_of_incoming_weights() -> None:
    model = _trained(experiences=2)
    with torch.no_grad():
        model.features[0].weight[4, :3] = 0  # type: ignore[index]
    use = unit_use(model)
    assert list(use) == ["0"]
    assert use["0"] == [[0.5 if unit == 4 else 1.0 for unit in range(16)]] * 2
