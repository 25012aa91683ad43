"""The scheme of ownership masks: a task's weights entry by entry, at its own width, saved and loaded."""

import io

import cl_ext  # noqa: F401
from cl_ext.models.expansion import expandable
from cl_ext.nn.masked import MaskedScheme, biases_of, weights_of
from cl_ext.nn.picking import Picks
from cl_ext.nn.resizing import add_outputs
from cl_ext.nn.task_norm import norms_of, resting_norms

import pytest
import torch
from torch import Tensor, nn


def _features() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 16, 5), nn.ReLU()
    )


def _own(features: nn.Module) -> dict[str, Tensor]:
    return dict(biases_of(features)) | norms_of(features)


def _three_tasks(features: nn.Sequential) -> MaskedScheme:
    """Owners drawn at random, two tasks closed, the third in training with a choice of its own."""
    scheme = MaskedScheme.of(weights_of(features))
    generator = torch.Generator().manual_seed(2)
    for name in scheme.owners.names:
        scheme.owners[name].copy_(torch.randint(0, 4, scheme.owners[name].shape, generator=generator))
    for task in (7, 3):
        with torch.no_grad():
            for tensor in _own(features).values():
                tensor.add_(0.5)
        scheme.close(features, task, _own(features))
    earlier = {name: (scheme.owners[name] > 0) & (scheme.owners[name] < 3) for name in scheme.owners.names}
    scheme.live = Picks(weights_of(features), earlier)
    with torch.no_grad():
        for mask in scheme.live.masks.values():
            mask.add_(0.01 * torch.randn(mask.shape, generator=generator))
    scheme.close(features, 9, _own(features))
    return scheme


def _by_entry(features: nn.Module, scheme: MaskedScheme, name: str, position: int, task: int) -> Tensor:
    """A task's weight, entry by entry, from the definition."""
    weight, owner = features.get_parameter(name).detach(), scheme.owners[name]
    result, picks = torch.zeros_like(weight), list(scheme.picked(task).get(name, torch.empty(0)))
    for index in torch.cartesian_prod(*(torch.arange(n) for n in weight.shape)):
        at = tuple(index.tolist())
        mine, old = int(owner[at]) == position, 0 < int(owner[at]) < position
        if old and picks:
            old = bool(picks.pop(0))
        if mine or old:
            result[at] = weight[at]
    return result


@pytest.mark.parametrize(("position", "task"), [(1, 7), (2, 3), (3, 9)])
def test_a_task_reads_what_it_and_earlier_ones_own_and_it_picks(position: int, task: int) -> None:
    features = _features()
    scheme = _three_tasks(features)
    tensors = scheme.materialise(features, task)
    for name in scheme.owners.names:
        assert torch.equal(tensors[name], _by_entry(features, scheme, name, position, task))
        assert tensors[name].is_contiguous()
    assert scheme.tasks == [7, 3, 9]


def test_the_effective_weights_are_the_own_and_the_picked() -> None:
    features = _features()
    scheme = _three_tasks(features)
    for position, task in enumerate(scheme.tasks, 1):
        for name, seen in scheme.visible(features, task).items():
            owner, picks = scheme.owners[name], scheme.picked(task).get(name)
            old = int(((owner > 0) & (owner < position)).sum()) if picks is None else int(picks.sum())
            assert int(seen.sum()) == int((owner == position).sum()) + old


def test_own_tensors_are_copies_and_training_goes_on_without_them() -> None:
    features = _features()
    scheme = _three_tasks(features)
    x = torch.randn(6, 1, 4, 4)
    features.eval()
    before = [scheme.read(features, x, task) for task in scheme.tasks]
    assert not torch.equal(before[0], before[1])
    with torch.no_grad():
        for tensor in _own(features).values():
            tensor.add_(1.0)
    features.train()
    assert all(torch.equal(old, scheme.read(features, x, t)) for old, t in zip(before, scheme.tasks, strict=True))
    assert all(module.training for module in features.modules())


def test_the_live_task_reads_the_features_as_they_are() -> None:
    features = _features()
    scheme = _three_tasks(features)
    x = torch.randn(6, 1, 4, 4)
    moved = features[1].running_mean.clone()
    live = scheme.read(features, x, 4)
    assert not torch.equal(features[1].running_mean, moved)
    scheme.norms_rest = True
    moved = features[1].running_mean.clone()
    assert not torch.equal(live, scheme.read(features, x, 4))
    assert torch.equal(features[1].running_mean, moved)
    assert features[1].training


def test_a_wider_network_is_read_at_the_old_width() -> None:
    features = _features()
    scheme = _three_tasks(features)
    features.eval()
    x = torch.randn(6, 1, 4, 4)
    before = [scheme.read(features, x, task) for task in scheme.tasks]
    add_outputs(features[4], torch.full((2, 48), torch.nan), torch.full((2,), torch.inf))
    scheme.owners.grow("4.weight", (7, 48))
    assert all(torch.equal(old, scheme.read(features, x, t)) for old, t in zip(before, scheme.tasks, strict=True))


def test_a_saved_network_reads_as_before_without_the_plugin() -> None:
    network = expandable(nn.Sequential(*_features(), nn.Linear(5, 4)))
    network.heads.add(7, [0, 1])
    network.heads.add(3, [2, 3])
    network.heads.add(9, [0, 3])
    network.scheme = _three_tasks(network.features)
    add_outputs(network.features[4], torch.randn(2, 48), torch.randn(2))
    network.scheme.owners.grow("4.weight", (7, 48))
    network.eval()
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    buffer.seek(0)
    other = expandable(nn.Sequential(*_features(), nn.Linear(5, 4)))
    other.load_state_dict(torch.load(buffer, weights_only=True))
    other.eval()
    x = torch.randn(6, 1, 4, 4)
    for task in (7, 3, 9):
        assert torch.equal(network(x, task), other(x, task))
    assert isinstance(other.scheme, MaskedScheme)
    assert other.scheme.extra_bytes() == network.scheme.extra_bytes() > 0


def test_resting_norms_put_flags_back_after_an_error() -> None:
    features = _features()
    seen = []

    def fail() -> None:
        with resting_norms(features):
            seen.append(features[1].training)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert seen == [False]
    assert features[1].training
