"""A stamped task's network is bit-equal whatever is added later, loads without the plugin, and moves nothing."""

import copy
from collections.abc import Callable

from cl_ext.models.expansion import ExpandableNetwork, expandable
from cl_ext.nn.growth import append_units, drawn_rows
from cl_ext.nn.stamped import Stamped

import pytest
import torch
from torch import Tensor, nn


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(32, 9), nn.ReLU(), nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 4))


def cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 3, 3, bias=False), nn.ReLU(),
        nn.Flatten(), nn.Linear(12, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4),
    )  # fmt: skip


def flat_top() -> nn.Sequential:
    """The head reads flattened channels."""
    return nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(20, 4))


each = pytest.mark.parametrize("make", [mlp, cnn, flat_top])


def begun(make: Callable[[], nn.Module], hide: bool = True) -> ExpandableNetwork:
    torch.manual_seed(1)
    network = expandable(make())
    network.scheme = Stamped(hide)
    return network


def train(network: ExpandableNetwork, task: int) -> None:
    """What a task does to the network: a head, some steps' worth of noise on what is shared, stamps."""
    network.heads.add(task, [0, 1])
    network.train()
    for _ in range(3):
        network(torch.randn(16, 2, 4, 4), task)
    with torch.no_grad():
        for parameter in network.features.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    network.scheme.stamp(network.stages, task)  # type: ignore[operator]
    network.eval()


def grow(network: ExpandableNetwork, count: int) -> None:
    """Adds units that older units read, with large weights."""
    stages, generator = network.stages, torch.Generator().manual_seed(3)
    for index, stage in enumerate(stages):
        columns = None
        if index + 1 < len(stages):
            reader = stages[index + 1].layer.weight
            columns = torch.randn(len(reader), count * stage.block, *reader.shape[2:])
        append_units(stages, index, 9 * drawn_rows(stage.layer, count, generator), torch.randn(count), columns)
    network.heads.add_inputs(torch.randn(4, count * stages[-1].block))


def outputs(network: ExpandableNetwork, x: Tensor, *tasks: int) -> list[Tensor]:
    with torch.no_grad():
        return [network(x, task)[:, network.heads[task].classes] for task in tasks]


X = torch.randn(11, 2, 4, 4, generator=torch.Generator().manual_seed(5))


@each
def test_later_units_are_not_read(make: Callable[[], nn.Module]) -> None:
    network = begun(make)
    train(network, 7)
    first = outputs(network, X, 7)[0]
    grow(network, 2)
    assert torch.equal(outputs(network, X, 7)[0], first)
    # batch norm of a later task is another task's own
    network.heads.add(3, [2, 3])
    network.train()
    network(5 * X, 3)
    network.eval()
    assert torch.equal(outputs(network, X, 7)[0], first)
    network.scheme.stamp(network.stages, 3)  # type: ignore[operator]
    second = outputs(network, X, 3)[0]
    grow(network, 3)
    assert torch.equal(outputs(network, X, 7)[0], first)
    assert torch.equal(outputs(network, X, 3)[0], second)
    assert network.scheme.stamps.tolist() == [
        [stage.units - 5 for stage in network.stages],
        [stage.units - 3 for stage in network.stages],
    ]


@each
@pytest.mark.parametrize("hide", [True, False])
@pytest.mark.parametrize("rows", [1, 4])
def test_rehearsed_samples_are_read_as_in_evaluation(make: Callable[[], nn.Module], hide: bool, rows: int) -> None:
    network = begun(make, hide)
    train(network, 7)
    network.heads.add(3, [2, 3])
    x = torch.cat([X[:rows], 5 * X[rows:]])
    expected, state = outputs(network, x[:rows], 7)[0], copy.deepcopy(network.scheme.state_dict())
    network.train()
    labels = torch.tensor([7] * rows + [3] * (len(x) - rows))
    assert torch.allclose(network(x, labels)[:rows, network.heads[7].classes], expected, atol=1e-6)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.scheme.state_dict().items())
    assert all(module.training for module in network.features.modules())


@each
def test_the_task_in_training_reads_every_unit(make: Callable[[], nn.Module]) -> None:
    network = begun(make)
    train(network, 0)
    grow(network, 2)
    network.heads.add(1, [0, 1])
    with torch.no_grad():
        assert torch.equal(network(X, 1)[:, :2], network.heads[1](network.features(X)))


@pytest.mark.parametrize("make", [mlp, cnn])
def test_without_hiding_later_units_are_read(make: Callable[[], nn.Module]) -> None:
    """The ablation, and what the test above would catch."""
    network = begun(make, hide=False)
    train(network, 0)
    first = outputs(network, X, 0)[0]
    same = begun(make)
    train(same, 0)
    assert torch.allclose(first, outputs(same, X, 0)[0])
    grow(network, 2)
    grown = outputs(network, X, 0)[0]
    assert grown.shape == first.shape
    assert not torch.allclose(grown, first, atol=1e-3)


@each
def test_a_task_by_hand(make: Callable[[], nn.Module]) -> None:
    """A network of the task's own, built from the first units, gives the same."""
    network = begun(make)
    train(network, 0)
    alone = copy.deepcopy(network.features)
    head = copy.deepcopy(network.heads[0])
    grow(network, 2)
    with torch.no_grad():
        assert torch.equal(network(X, 0)[:, :2], head(alone(X)))


@each
def test_saved_and_loaded_it_answers_for_every_task(make: Callable[[], nn.Module]) -> None:
    network = begun(make)
    train(network, 4)
    grow(network, 2)
    train(network, 2)
    torch.manual_seed(9)
    loaded = expandable(make())
    loaded.load_state_dict(network.state_dict())
    loaded.eval()
    for ours, theirs in zip(outputs(network, X, 4, 2), outputs(loaded, X, 4, 2), strict=True):
        assert torch.equal(ours, theirs)
    assert loaded.scheme.hide == network.scheme.hide


def test_a_pass_of_an_older_task_in_training_moves_nothing() -> None:
    network = begun(cnn)
    train(network, 0)
    grow(network, 1)
    before = {name: tensor.clone() for name, tensor in network.scheme.named_buffers()}
    network.train()
    network(X, 0).sum().backward()
    for name, tensor in network.scheme.named_buffers():
        assert torch.equal(tensor, before[name]), name
    weight = network.stages[0].layer.weight
    assert weight.grad is not None
    assert weight.grad[:5].any()
    assert not weight.grad[5:].any()  # the unit that came later


def test_effective_weights_are_the_tasks_own() -> None:
    network = begun(cnn)
    train(network, 0)
    grow(network, 2)
    scheme = network.scheme
    shapes = {name: tuple(tensor.shape) for name, tensor in scheme.effective(network.features, 0).items()}
    expected = {name: tuple(parameter.shape) for name, parameter in expandable(cnn()).features.named_parameters()}
    assert shapes == expected
    with pytest.raises(ValueError, match="task 8 has no stamps"):
        scheme.tensors(network.features, 8)  # type: ignore[operator]
