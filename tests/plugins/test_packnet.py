"""PackNet: earlier tasks are exact, what is pruned is what sorting says, capacity is the product of the shares."""

import itertools
from typing import Any

import cl_ext  # noqa: F401
from cl_ext._avalanche_methods.architecture import packed_layers
from cl_ext.nn.masked import biases_of, weights_of
from cl_ext.nn.task_norm import norms_of
from cl_ext.plugins import PackNetPlugin
from cl_ext.streams.scenario import TensorScenario
from cl_ext.streams.tensors import ImageTensors, tensor_dataset

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.methods.helpers import NormedNetwork, run, tiny_stream
from tests.plugins.masking import deep, image_network, stream, watched

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")


def _owners(runner: Any) -> dict[str, Tensor]:
    scheme = runner.model.scheme
    return {name: scheme.owners[name].clone() for name in scheme.owners.names}


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("kind", ["per_task", "frozen"])
def test_earlier_tasks_stay_bit_identical(optimizer: str, kind: Any) -> None:
    plugin = PackNetPlugin(0.5, retrain_epochs=2, biases=kind, norm=kind)
    runner, watch = watched(plugin, optimizer=optimizer)
    assert watch.looks == 15  # after 4 epochs and at the end, of one and of two earlier tasks
    assert watch.drifts == 0
    assert all(bool(torch.isfinite(p).all()) for p in runner.model.parameters())


@pytest.mark.parametrize("name", ["cnn", "resnet18"])
def test_earlier_tasks_stay_bit_identical_in_convolutional_networks(name: str) -> None:
    plugin = PackNetPlugin(0.5, retrain_epochs=1)
    experiences = stream((1, 8, 8), samples=24).train_stream
    _, watch = watched(plugin, image_network(name), "adam", experiences, (1, 8, 8))
    assert watch.looks > 0
    assert watch.drifts == 0


class _SharedNorm(PackNetPlugin):
    """Negative control: batch norm is all tasks' and goes on learning."""

    def own_tensors(self) -> dict[str, Tensor]:
        return dict(biases_of(self.features))


class _SharedBiases(PackNetPlugin):
    """Negative control."""

    def own_tensors(self) -> dict[str, Tensor]:
        return norms_of(self.features)


class _MaskedGradients(PackNetPlugin):
    """Negative control: gradients of what others own are 0, and nothing is put back after the step."""

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        assert self._hold is None or bool((self.weights()["0.weight"].grad[~self.owned()["0.weight"]] == 0).all())


@pytest.mark.parametrize("broken", [_SharedNorm, _SharedBiases, _MaskedGradients])
def test_the_watch_sees_what_forgets(broken: Any) -> None:
    _, watch = watched(broken(0.5, retrain_epochs=1))
    assert watch.drifts > 0


def test_owners_are_a_partition_and_constant() -> None:
    seen: list[dict[str, Tensor]] = []
    plugin = PackNetPlugin(0.5, retrain_epochs=1)
    experiences = list(stream().train_stream)
    runner, _ = watched(plugin, experiences=experiences[:1])
    seen.append(_owners(runner))
    for experience in experiences[1:]:
        runner.train(experience, eval_streams=[])
        seen.append(_owners(runner))
    for position, (before, after) in enumerate(itertools.pairwise(seen), 1):
        for name, owner in after.items():
            old = before[name] > 0
            assert torch.equal(owner[old], before[name][old])
            assert set(owner[~old].tolist()) <= {0, position + 1}
    counts = runner.model.scheme.owners.counts(3)
    assert sum(counts) == sum(w.numel() for w in weights_of(runner.model.features).values())
    assert counts == [sum(int((o == t).sum()) for o in seen[-1].values()) for t in range(4)]


def test_what_is_free_is_zero_so_that_the_live_task_reads_plain_features() -> None:
    runner, _ = watched(PackNetPlugin(0.5, retrain_epochs=1))
    features, scheme = runner.model.features, runner.model.scheme
    weights = weights_of(features)
    for name in scheme.owners.names:
        assert bool((weights[name][scheme.owners.free(name)] == 0).all())
        assert torch.equal(scheme.materialise(features, 2)[name], weights[name])


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_what_is_pruned_is_what_sorting_says(share: float) -> None:
    """The first task up to its pruning is the same run at any share."""
    first = list(stream().train_stream)[:1]
    whole, _ = watched(PackNetPlugin(0.0), experiences=first)
    packed, _ = watched(PackNetPlugin(share, retrain_epochs=0), experiences=first)
    owners = _owners(packed)
    for name, weight in weights_of(whole.model.features).items():
        flat = weight.detach().numpy().ravel()
        pruned = np.zeros(flat.size, dtype=bool)
        pruned[np.argsort(np.abs(flat), kind="stable")[: round(share * flat.size)]] = True
        assert (owners[name].numpy().ravel() == 0).tolist() == pruned.tolist()
        expected = np.where(pruned, 0.0, flat)
        assert np.array_equal(weights_of(packed.model.features)[name].detach().numpy().ravel(), expected)


def test_a_later_task_ranks_its_own_weights_alone() -> None:
    """Small weights of the first task do not save those of the second."""
    first = list(stream().train_stream)[:2]
    whole, _ = watched(PackNetPlugin([0.5, 0.0], retrain_epochs=0), experiences=first)
    packed, _ = watched(PackNetPlugin([0.5, 0.4], retrain_epochs=0), experiences=first)
    for name, weight in weights_of(whole.model.features).items():
        mine = (_owners(whole)[name] == 2).numpy()
        own = np.abs(weight.detach().numpy()[mine])
        lost = np.sort(own)[: round(0.4 * own.size)]
        owner = _owners(packed)[name].numpy()
        assert np.array_equal(np.sort(own[owner[mine] == 0]), lost)
        assert ((owner == 1) == (_owners(whole)[name].numpy() == 1)).all()


def test_the_free_share_is_the_product_of_the_shares() -> None:
    shares = (0.5, 0.75, 0.6)
    runner, _ = watched(PackNetPlugin(shares, retrain_epochs=0))
    for owner in _owners(runner).values():
        free = owner.numel()
        for share in shares:
            free = round(share * free)
        assert int((owner == 0).sum()) == free
        assert free / owner.numel() == pytest.approx(np.prod(shares), abs=2 / owner.numel())


def test_without_pruning_and_for_the_last_of_known_tasks_all_is_kept() -> None:
    runner, _ = watched(PackNetPlugin(0.0, retrain_epochs=1))
    assert set(torch.cat([o.flatten() for o in _owners(runner).values()]).tolist()) == {1}
    equal, _ = watched(PackNetPlugin("equal", retrain_epochs=0, tasks=3))
    for owner in _owners(equal).values():
        counts = torch.bincount(owner.flatten().int(), minlength=4).tolist()
        assert counts[0] == 0
        assert max(counts[1:]) - min(counts[1:]) <= 1
    last, _ = watched(PackNetPlugin(0.5, retrain_epochs=0, tasks=3))
    assert all(bool((owner > 0).all()) for owner in _owners(last).values())


@pytest.mark.parametrize("prune", [0.5, "equal"])
def test_the_last_of_known_tasks_trains_as_many_steps_as_the_others(prune: Any) -> None:
    """It prunes nothing, but a stream's last accuracy is not to be that of fewer steps."""

    class Counting(PackNetPlugin):
        steps: tuple[int, ...] = ()

        def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            super().after_training_exp(strategy, *args, **kwargs)
            self.steps += (strategy.clock.train_exp_iterations,)

    known, unknown, none = Counting(prune, 2, tasks=3), Counting(0.5, 2), Counting(0.0, 2, tasks=3)
    for plugin in (known, unknown, none):
        watched(plugin)
    assert known.steps == unknown.steps
    assert all(few < many for few, many in zip(none.steps, known.steps, strict=True))  # prune 0 is plain training


def test_frozen_biases_and_norms_are_those_of_the_first_task() -> None:
    experiences = list(stream().train_stream)
    plugin = PackNetPlugin(0.5, retrain_epochs=1, biases="frozen", norm="frozen")
    runner, _ = watched(plugin, experiences=experiences[:1])
    shared = dict(biases_of(runner.model.features)) | norms_of(runner.model.features)
    before = {name: tensor.clone() for name, tensor in shared.items()}
    initial = deep()
    assert any(not torch.equal(t, before[n]) for n, t in biases_of(initial.features).items())
    for experience in experiences[1:]:
        runner.train(experience, eval_streams=[])
    assert all(torch.equal(tensor, before[name]) for name, tensor in shared.items())
    assert not runner.model.scheme.own.keys()  # nothing is stored twice


def test_the_second_phase_trains_what_is_left_and_leaves_pruned_weights_at_zero() -> None:
    first = list(stream().train_stream)[:1]
    cut, _ = watched(PackNetPlugin(0.5, retrain_epochs=0), experiences=first)
    trained, _ = watched(PackNetPlugin(0.5, retrain_epochs=2), experiences=first)
    owners, weights = _owners(cut), weights_of(cut.model.features)
    for name, weight in weights_of(trained.model.features).items():
        assert torch.equal(owners[name], _owners(trained)[name])
        assert bool((weight[owners[name] == 0] == 0).all())
        assert bool((weight[owners[name] == 1] != weights[name][owners[name] == 1]).any())


def test_the_learning_rate_of_the_second_phase_and_a_fresh_momentum() -> None:
    rates: list[float] = []

    class _Spied(PackNetPlugin):
        def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            rates.append(strategy.optimizer.param_groups[0]["lr"])
            if len(rates) in (1, 11):  # 32 samples by 7: five steps an epoch, two epochs
                assert not strategy.optimizer.state

    first = list(stream().train_stream)[:1]
    runner, _ = watched(_Spied(0.5, retrain_epochs=1, retrain_lr_factor=0.2), experiences=first)
    assert rates == [0.05] * 10 + [pytest.approx(0.01)] * 5
    assert runner.optimizer.param_groups[0]["lr"] == 0.05


def test_layers_that_the_user_froze_are_left_alone() -> None:
    model = deep()
    frozen = model.features[4].weight.requires_grad_(False)
    before = frozen.clone()
    runner, watch = watched(PackNetPlugin(0.5, retrain_epochs=1), lambda: model)
    assert torch.equal(frozen, before)
    assert runner.model.scheme.owners.names == ["0.weight", "7.weight"]
    assert watch.drifts == 0


def _labelled(labels: list[int]) -> list[Any]:
    """Experiences with these task labels, of 2, 3 and 1 classes."""
    generator, first, made = torch.Generator().manual_seed(8), 0, []
    for label, count in zip(labels, (2, 3, 1), strict=True):
        y = torch.arange(24) % count + first
        x = torch.randn(24, 8, generator=generator) + y[:, None]
        made.append(tensor_dataset(ImageTensors(x, y), label))
        first += count
    return list(TensorScenario({"train": made, "test": made}).train_stream)


def test_the_labels_of_tasks_do_not_matter() -> None:
    plain, _ = watched(PackNetPlugin(0.5, retrain_epochs=1), experiences=_labelled([0, 1, 2]))
    other, watch = watched(PackNetPlugin(0.5, retrain_epochs=1), experiences=_labelled([7, 3, 9]))
    assert watch.drifts == 0
    x = torch.randn(4, 8)
    for first, second in zip((0, 1, 2), (7, 3, 9), strict=True):
        assert torch.equal(plain.model.eval()(x, first), other.model.eval()(x, second))
    assert torch.equal(plain.model(x, 0).isfinite()[0], torch.tensor([True] * 2 + [False] * 4))


def test_a_saved_network_answers_for_every_task_without_the_plugin() -> None:
    runner, _ = watched(PackNetPlugin(0.5, retrain_epochs=1))
    other = deep()
    other.load_state_dict(runner.model.state_dict())
    x = torch.randn(4, 8)
    for task in range(3):
        assert torch.equal(runner.model.eval()(x, task), other.eval()(x, task))


def test_bytes_are_those_of_owners_and_own_tensors() -> None:
    plugin = PackNetPlugin(0.5, retrain_epochs=1)
    runner, _ = watched(plugin)
    weights = sum(w.numel() for w in weights_of(runner.model.features).values())
    own = 4 * ((14 + 10) + 4 * (14 + 12))  # biases of two layers; weight, bias, mean and variance of two norms
    sizes = 3 * 2 * 4  # three matrices
    assert plugin.extra_bytes() == weights + 3 * (own + sizes)


def test_without_pruning_the_first_experience_is_naive() -> None:
    one = tiny_stream("task", experiences=1)
    packed = run("packnet", "task", {"shares": "fixed", "prune": 0.0}, benchmark=one).weights
    naive = run("naive", "task", benchmark=one).weights
    features = {name: tensor for name, tensor in naive.items() if "features" in name}
    assert features
    assert all(torch.equal(packed[name], tensor) for name, tensor in features.items())
    assert torch.equal(packed["0.heads.heads.0.weight"], naive["0.classifier.weight"][:2])


@pytest.mark.parametrize("share", [0.5, 0.75])
def test_it_packs_as_much_as_avalanches(share: float) -> None:
    """The rows on the same network: the first two tasks of three own equally many weights of each hidden layer."""
    theirs = run("packnet_avalanche", "task", {"prune_proportion": share}).built.networks()[0]
    ours = run("packnet", "task", {"shares": "fixed", "prune": share}).built.strategy
    layers = packed_layers(theirs)[:2]  # the third is their shared classifier
    for owner, layer in zip(_owners(ours).values(), layers, strict=True):
        for position in (1, 2):  # theirs count from 0
            assert abs(int((owner == position).sum()) - int((layer.task_index == position - 1).sum())) <= 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"prune": 1.5}, ValueError, r"PackNetPlugin: prune must be in \[0, 1\], got 1.5"),
        ({"prune": "same"}, ValueError, "prune must be numbers .* or 'equal', got 'same'"),
        ({"prune": "equal"}, ValueError, "'equal' needs tasks"),
        ({"prune": []}, ValueError, "prune must be numbers"),
        ({"prune": [0.5, "a"]}, TypeError, "prune must be a number, got 'a'"),
        ({"retrain_epochs": -1}, ValueError, "retrain_epochs must be an integer >= 0, got -1"),
        ({"retrain_lr_factor": 0.0}, ValueError, "retrain_lr_factor must be in"),
        ({"tasks": 0}, ValueError, "tasks must be an integer >= 1, got 0"),
        ({"biases": "shared"}, ValueError, "biases must be one of 'per_task', 'frozen', got 'shared'"),
        ({"norm": 1}, ValueError, "norm must be one of"),
    ],
)
def test_bad_hyper_parameters(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PackNetPlugin(**arguments)


def test_networks_and_states_that_do_not_fit() -> None:
    experiences = list(stream().train_stream)
    with pytest.raises(TypeError, match="needs an expandable network"):
        watched(PackNetPlugin(), lambda: NormedNetwork(6, (8,)), experiences=experiences[:1])  # type: ignore[arg-type,return-value]
    runner, _ = watched(PackNetPlugin(0.5, retrain_epochs=0), experiences=experiences[:1])
    with pytest.raises(ValueError, match="load the states of both"):
        watched(PackNetPlugin(), lambda: runner.model, experiences=experiences[1:2])
    with pytest.raises(ValueError, match="label of its own"):
        runner.train(experiences[0], eval_streams=[])
