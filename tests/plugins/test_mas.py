"""MAS against closed forms, the definition one sample at a time and the official algorithm re-derived, in float64."""

from collections.abc import Callable
from typing import Any

from cl_ext.methods.criterion import ScenarioCrossEntropy
from cl_ext.nn.sample_pass import dataset_sums, trained_outputs
from cl_ext.plugins import MASPlugin
from cl_ext.plugins.mas import squared_norm_seed, trained_classes, unlabelled_batches

import pytest
import torch
from avalanche.benchmarks import dataset_benchmark, nc_benchmark
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.models import IncrementalClassifier
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
N, D, H, K = 23, 4, 6, 5
Named = dict[str, Tensor]
Output = Callable[[Tensor], Tensor]


@pytest.fixture
def x() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.3


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, H), nn.ReLU(), nn.Linear(H, K)).double()


def _omega(model: nn.Module, x: Tensor, y: Tensor | None = None, **options: Any) -> Named:
    dataset = TensorDataset(x, torch.zeros(len(x), dtype=torch.long) if y is None else y)
    classes = options.pop("classes", None)
    return MASPlugin(**{"batch_size": 7} | options).new_importance(model, dataset, classes)


def _close(a: Named, b: Named, rtol: float = 1e-10) -> bool:
    return all(torch.allclose(a[name], b[name], rtol=rtol, atol=1e-14) for name in b)


def _squares(phi: Tensor) -> Tensor:
    return phi.square().sum()


def _gradients(model: nn.Module, x: Tensor, function: Output) -> Named:
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(function(model(x)), list(parameters.values()), allow_unused=True)
    pairs = zip(parameters.items(), gradients, strict=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in pairs}


def _loop(model: nn.Module, x: Tensor, function: Output = _squares, f: Any = torch.abs, batch: int = 1) -> Named:
    """The mean over batches of `f` of the gradient of `function`, divided by the batch: the definition at batch 1."""
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for x_b in x.split(batch):
        for name, g in _gradients(model, x_b, function).items():
            total[name] += f(g / len(x_b)) * len(x_b) / len(x)
    return total


# ---- the importance ------------------------------------------------------------------------------------------------
def test_linear_closed_form(x: Tensor) -> None:
    """F = W x + b: the mean of 2 |f_i| |x_j|, and of 2 |f_i| for the bias."""
    model = nn.Linear(D, K).double()
    f = model(x).detach().abs()
    omega = _omega(model, x)
    torch.testing.assert_close(omega["weight"], 2 * f.t() @ x.abs() / N, rtol=1e-12, atol=0)
    torch.testing.assert_close(omega["bias"], 2 * f.mean(0), rtol=1e-12, atol=0)


def test_it_is_the_definition(model: nn.Module, x: Tensor) -> None:
    assert _close(_omega(model, x), _loop(model, x))


def test_it_is_the_definition_on_a_convolution() -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, K)
    model, x = nn.Sequential(*layers).double(), torch.randn(9, 2, 4, 4, dtype=torch.float64)
    assert _close(_omega(model, x), _loop(model, x))


def test_the_official_algorithm(model: nn.Module, x: Tensor) -> None:
    """rahafaljundi/MAS at c3e6a85, b1=True: batches of one, summed squares, a running mean of |grad|."""
    omega = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for index, x_n in enumerate(x.split(1)):
        model.zero_grad()
        outputs = model(x_n)
        nn.functional.mse_loss(outputs, torch.zeros_like(outputs), reduction="sum").backward()
        for name, p in model.named_parameters():
            omega[name] = (omega[name] * index + p.grad.abs()) / (index + 1)
    assert _close(_omega(model, x), omega)


def test_batching_order_and_duplication_change_nothing(model: nn.Module, x: Tensor) -> None:
    whole = _omega(model, x, batch_size=N)
    for batch_size in (1, 7, 22):
        assert _close(_omega(model, x, batch_size=batch_size), whole)
    assert _close(_omega(model, x.flip(0)), whole)
    assert _close(_omega(model, torch.cat([x, x])), whole)


def test_rotating_the_outputs_changes_nothing_below_them(model: nn.Module, x: Tensor) -> None:
    rotation = torch.linalg.qr(torch.randn(K, K, dtype=torch.float64))[0]
    turned = nn.Sequential(*model, nn.Linear(K, K, bias=False).double())
    turned[3].weight = nn.Parameter(rotation, requires_grad=False)
    assert _close(_omega(turned, x), _omega(model, x), rtol=1e-9)


def test_permuting_hidden_units_permutes_the_importance(model: nn.Module, x: Tensor) -> None:
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    moved = nn.Sequential(nn.Linear(D, H), nn.ReLU(), nn.Linear(H, K)).double()
    permute = {"0.weight": lambda w: w[order], "0.bias": lambda b: b[order], "2.weight": lambda w: w[:, order]}
    moved.load_state_dict({name: permute.get(name, lambda v: v)(v) for name, v in model.state_dict().items()})
    expected = {name: permute.get(name, lambda v: v)(o) for name, o in _omega(model, x).items()}
    assert _close(_omega(moved, x), expected)


def test_cancellation_within_a_batch(model: nn.Module, x: Tensor) -> None:
    """The official b1=False, |sum over the batch|: at most the sum of |.|, often below, equal at batches of 1."""
    exact, batched = _omega(model, x), _loop(model, x, batch=8)
    assert all(bool((batched[name] <= exact[name] * (1 + 1e-12)).all()) for name in exact)
    assert not _close(batched, exact, rtol=0.05)
    assert _close(_loop(model, x, batch=1), exact)


def test_train_mode_is_off_and_comes_back(x: Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(D, H), nn.BatchNorm1d(H), nn.ReLU(), nn.Dropout(0.5), nn.Linear(H, K)).double()
    for _ in range(20):
        model(3 * x + 1)
    model[1].eval()
    statistics = model[1].running_mean.clone()
    state, flags = torch.get_rng_state(), [module.training for module in model.modules()]
    omega = _omega(model, x)
    assert flags == [module.training for module in model.modules()]
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(statistics, model[1].running_mean)
    with_dropout = _loop(model, x)
    model.eval()
    assert _close(omega, _loop(model, x))
    assert not _close(with_dropout, _loop(model, x), rtol=0.05)


def _batch_mean(model: nn.Module, x: Tensor) -> Named:
    """Avalanche, and the official b1=False."""
    return _loop(model, x, batch=8)


def _squared_gradient(model: nn.Module, x: Tensor) -> Named:
    """HW14 and corel2m."""
    return _loop(model, x, f=torch.square)


def _of_probabilities(model: nn.Module, x: Tensor) -> Named:
    """corel2m."""
    return _loop(model, x, lambda phi: _squares(phi.softmax(1)))


def _plain_norm(model: nn.Module, x: Tensor) -> Named:
    """FACIL: the norm, not its square."""
    return _loop(model, x, lambda phi: phi.norm(dim=1).sum())


def _mean_over_outputs(model: nn.Module, x: Tensor) -> Named:
    """GT-RIPL."""
    return _loop(model, x, lambda phi: phi.square().mean())


@pytest.mark.parametrize("faulty", [_batch_mean, _squared_gradient, _of_probabilities, _plain_norm, _mean_over_outputs])
def test_negative_control(faulty: Any, model: nn.Module, x: Tensor) -> None:
    """Each variant of a public code is far outside what the oracle of the definition lets pass."""
    ours = _omega(model, x)
    assert _close(ours, _loop(model, x))
    assert not _close(ours, faulty(model, x), rtol=0.05)


# ---- which outputs -------------------------------------------------------------------------------------------------
def test_chosen_outputs_are_a_smaller_network(model: nn.Module, x: Tensor) -> None:
    omega = _omega(model, x, classes=[0, 3])
    assert _close(omega, _loop(model, x, lambda phi: _squares(phi[:, [0, 3]])))
    assert not _close(omega, _omega(model, x), rtol=0.05)
    assert float(omega["2.weight"][[1, 2, 4]].abs().max()) == 0.0


def _small_head(x: Tensor) -> tuple[nn.Module, Named]:
    """A head whose units 1, 2 and 4 are masked to -1000, and the importance of one without them."""
    torch.manual_seed(0)
    head, small = IncrementalClassifier(D, K).double(), nn.Linear(D, 2).double()
    head.active_units[[0, 3]] = 1
    with torch.no_grad():
        small.weight.copy_(head.classifier.weight[[0, 3]])
        small.bias.copy_(head.classifier.bias[[0, 3]])
    return head, _loop(small, x)


def test_masked_units_do_not_enter(x: Tensor) -> None:
    head, expected = _small_head(x)
    assert float(head(x).detach()[0, 1]) == -1000.0
    omega = _omega(head, x)
    torch.testing.assert_close(omega["classifier.weight"][[0, 3]], expected["weight"])
    torch.testing.assert_close(omega["classifier.bias"][[0, 3]], expected["bias"])
    assert float(omega["classifier.weight"][[1, 2, 4]].abs().max()) == 0.0


def test_negative_control_masked_units(x: Tensor) -> None:
    """-1000 enters where the norm is not squared (FACIL), or where the mask is added and not written."""
    head, expected = _small_head(x)
    plain = _loop(head, x, lambda phi: phi.norm(dim=1).sum())["classifier.weight"][[0, 3]]
    small_norm = _loop(head, x, lambda phi: phi[:, [0, 3]].norm(dim=1).sum())["classifier.weight"][[0, 3]]
    assert float((plain / small_norm).max()) < 0.01

    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = head.classifier

        def forward(self, x: Tensor) -> Tensor:
            return self.classifier(x) - 1000.0 * (1 - head.active_units)

    wrong = _omega(Added(), x)["classifier.weight"]
    assert float(wrong[[1, 2, 4]].max()) > 100 * float(expected["weight"].max())
    mended = _omega(Added(), x, classes=[0, 3])["classifier.weight"]
    torch.testing.assert_close(mended[[0, 3]], expected["weight"])
    assert float(mended[[1, 2, 4]].max()) == 0.0


def test_infinite_logits_of_unread_outputs_do_no_harm() -> None:
    phi = torch.tensor([[1.0, -torch.inf, -2.0]])
    assert squared_norm_seed(phi, [0, 2]).tolist() == [[[2.0, 0.0, -4.0]]]
    assert squared_norm_seed(phi[:, ::2]).tolist() == [[[2.0, -4.0]]]


def test_the_classes_that_a_loss_reads() -> None:
    tasks = ScenarioCrossEntropy([[0, 3], [1, 2], [4]])
    assert trained_classes(tasks, torch.tensor([0]), K) == [0, 3]
    assert trained_classes(tasks, torch.tensor([1, 3]), K) == [0, 1, 2, 3]
    assert trained_classes(nn.CrossEntropyLoss(), torch.tensor([0]), K) == list(range(K))


def _stay(plugin: MASPlugin, model: nn.Module, experiences: Any, criterion: Any = None) -> Any:
    """Trains at learning rate 0: what is left is the plugin."""
    options = {} if criterion is None else {"criterion": criterion}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    runner = common.strategy(model, [plugin], optimizer=optimizer, train_epochs=1, **options)
    for experience in experiences:
        runner.train(experience)
    return runner


def _inputs(experience: Any) -> Tensor:
    return torch.stack([sample[0] for sample in experience.dataset])


def _doubles(per_class: int = 10) -> Any:
    """The common stream in float64."""
    x, y = common.blobs(per_class, 1).tensors
    data = common.labelled(x.double(), y)
    return nc_benchmark(data, data, common.EXPERIENCES, task_labels=False, shuffle=False).train_stream


@pytest.mark.parametrize("outputs", ["trained", "all"])
def test_task_incremental_outputs(outputs: Any) -> None:
    """Only the task's own logits are F, though the network gives those of all tasks."""
    torch.manual_seed(0)
    model, stream = common.mlp().double(), _doubles()
    tasks = [sorted(e.classes_in_this_experience) for e in stream]
    plugin = MASPlugin(outputs=outputs)
    _stay(plugin, model, stream[:1], ScenarioCrossEntropy(tasks))
    x = _inputs(stream[0])
    own, every = _loop(model, x, lambda phi: _squares(phi[:, tasks[0]])), _loop(model, x)
    assert _close(plugin.importances, own if outputs == "trained" else every)
    assert not _close(own, every, rtol=0.05)


def test_labels_do_not_matter_beyond_which_classes_there_are() -> None:
    """One experience of several tasks; a mask by each sample's own label would feel a permutation of them."""
    torch.manual_seed(0)
    model = common.mlp().double()
    x, y = common.blobs(5, 1).tensors
    x, criterion, found = x.double(), ScenarioCrossEntropy([[0, 1, 2], [3, 4], [5, 6, 7]]), []
    for labels in (y, y[torch.randperm(len(y))]):
        data = common.labelled(x, labels)
        plugin = MASPlugin()
        _stay(plugin, model, nc_benchmark(data, data, 1, task_labels=False, shuffle=False).train_stream, criterion)
        found.append(plugin.importances)
    assert _close(found[0], found[1])
    assert _close(found[0], _loop(model, x))

    def by_label(phi: Tensor, labels: Tensor) -> Tensor:
        return (2 * phi * trained_outputs(criterion, phi, labels)).unsqueeze(0)

    parameters, permuted = dict(model.named_parameters()), y.flip(0)
    one, other = (dataset_sums(model, parameters, TensorDataset(x, t), by_label, torch.abs)[0] for t in (y, permuted))
    assert not _close(one, other, rtol=0.05)


# ---- accumulation over experiences ---------------------------------------------------------------------------------
@pytest.mark.parametrize("accumulate", ["sum", "mean"])
def test_accumulation(accumulate: Any) -> None:
    """Three experiences at weights that stay: the sum or the mean; Avalanche's moving average (1/2) is neither."""
    torch.manual_seed(0)
    model, stream = common.mlp().double(), _doubles()
    each = [_loop(model, _inputs(e)) for e in stream[:3]]
    plugin = MASPlugin(accumulate=accumulate)
    _stay(plugin, model, stream[:3])
    total = {name: sum(o[name] for o in each) for name in each[0]}
    assert _close(plugin.importances, {n: o / (1 if accumulate == "sum" else 3) for n, o in total.items()})
    moving = {name: each[0][name] / 4 + each[1][name] / 4 + each[2][name] / 2 for name in total}
    assert not _close(plugin.importances, moving, rtol=0.05)


def test_the_penalty_has_no_half() -> None:
    """The gradient is 2 lambda Omega (theta - theta*)."""
    plugin, model, stream = MASPlugin(0.7), common.mlp(), common.benchmark().train_stream
    _stay(plugin, model, stream[:1])
    parameters = list(model.parameters())
    with torch.no_grad():
        for p in parameters:
            p.add_(0.1)
    plugin.align(model)
    for p in parameters:
        p.grad = torch.zeros_like(p)
    plugin.after_backward(None)
    for (name, p), omega in zip(model.named_parameters(), plugin.importances.values(), strict=True):
        torch.testing.assert_close(p.grad, 2 * 0.7 * omega * (p.detach() - plugin.anchors[name]))


# ---- the update on unlabelled data ---------------------------------------------------------------------------------
def _deployed(**options: Any) -> tuple[MASPlugin, nn.Module, Tensor]:
    """A plugin after one experience at weights that stay, its network, and the experience's inputs."""
    torch.manual_seed(0)
    model, stream = common.mlp().double(), _doubles()
    plugin = MASPlugin(**options)
    _stay(plugin, model, stream[:1])
    return plugin, model, _inputs(stream[0])


@pytest.fixture
def new() -> Tensor:
    return torch.randn(17, common.FEATURES, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 2


def test_the_running_mean_is_the_mean_over_everything(new: Tensor) -> None:
    plugin, model, old = _deployed()
    expected = _loop(model, torch.cat([old, new]))
    assert plugin.update_importance(model, new[:5]) == 5
    assert not _close(plugin.importances, expected, rtol=0.05)
    plugin.update_importance(model, [new[5:6], new[6:14]])
    plugin.update_importance(model, new[14:])
    assert plugin.samples == len(old) + len(new)
    assert _close(plugin.importances, expected)


def test_the_running_mean_is_the_papers_formula(new: Tensor) -> None:
    """`Omega <- (n Omega + sum |g|) / (n + |X|)`, `n <- n + |X|`, batch by batch."""
    plugin, model, old = _deployed()
    omega, n = {name: o.clone() for name, o in plugin.importances.items()}, len(old)
    for batch in new.split(6):
        total = {name: len(batch) * o for name, o in _loop(model, batch).items()}
        omega = {name: (n * o + total[name]) / (n + len(batch)) for name, o in omega.items()}
        n += len(batch)
        plugin.update_importance(model, batch)
        assert _close(plugin.importances, omega)


def test_order_and_kind_of_the_data_do_not_matter(new: Tensor) -> None:
    nonsense = torch.randint(10**6, (len(new),))
    dataset, tasks = TensorDataset(new, nonsense), torch.zeros(len(new), dtype=torch.long)
    kinds: list[Any] = [
        new, new.flip(0), [new], list(new.split(4)), (batch for batch in new.split(9)), [(new,)], [(new, nonsense)],
        [[new, nonsense, tasks]], dataset, TensorDataset(new), common.labelled(new, nonsense),
        DataLoader(dataset, batch_size=3, shuffle=True), DataLoader(TensorDataset(new), batch_size=1),
    ]  # fmt: skip
    found = []
    for data in kinds:
        plugin, model, _ = _deployed(batch_size=4)
        state = torch.get_rng_state()
        plugin.update_importance(model, data)
        assert torch.equal(state, torch.get_rng_state())
        found.append(plugin.importances)
    assert all(_close(omega, found[0]) for omega in found)


def test_an_experiences_data_set_can_be_given() -> None:
    plugin, model, old = _deployed()
    before = {name: o.clone() for name, o in plugin.importances.items()}
    assert plugin.update_importance(model, _doubles()[0].dataset) == len(old)
    assert _close(plugin.importances, before)
    plugin.update_importance(model, _doubles()[1].dataset)
    assert not _close(plugin.importances, before, rtol=0.01)


def test_an_update_touches_nothing_else(new: Tensor) -> None:
    plugin, model, _ = _deployed()
    model.train()
    model[1].eval()
    weights, anchors = common.weights(model), {name: a.clone() for name, a in plugin.anchors.items()}
    flags = [module.training for module in model.modules()]
    gradients = [p.grad.clone() for p in model.parameters()]
    plugin.update_importance(model, new)
    assert common.same(weights, common.weights(model))
    assert common.same(anchors, plugin.anchors)
    assert flags == [module.training for module in model.modules()]
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))


@pytest.mark.parametrize("accumulate", ["sum", "mean"])
def test_an_update_leaves_earlier_experiences_their_share(accumulate: Any, new: Tensor) -> None:
    torch.manual_seed(0)
    model, stream = common.mlp().double(), _doubles()
    plugin = MASPlugin(accumulate=accumulate)
    runner = _stay(plugin, model, stream[:2])
    plugin.update_importance(model, new)
    first = _loop(model, _inputs(stream[0]))
    second, third = _loop(model, torch.cat([_inputs(stream[1]), new])), _loop(model, _inputs(stream[2]))
    scale = {"sum": (1.0, 1.0), "mean": (1 / 2, 1 / 3)}[accumulate]
    assert _close(plugin.importances, {name: scale[0] * (first[name] + second[name]) for name in first})
    runner.train(stream[2])
    assert _close(plugin.importances, {name: scale[1] * (first[name] + second[name] + third[name]) for name in first})


@pytest.mark.parametrize("accumulate", ["sum", "mean"])
def test_what_can_be_forgotten(accumulate: Any, new: Tensor) -> None:
    torch.manual_seed(0)
    model, stream = common.mlp().double(), _doubles()
    plugin = MASPlugin(accumulate=accumulate)
    runner = _stay(plugin, model, stream[:2])
    first, second, user = (_loop(model, x) for x in (_inputs(stream[0]), _inputs(stream[1]), new))
    half = 1.0 if accumulate == "sum" else 0.5
    plugin.update_importance(model, new, forget="latest")
    assert plugin.samples == len(new)
    assert _close(plugin.importances, {name: half * (first[name] + user[name]) for name in first})
    plugin.update_importance(model, new, forget="all")
    assert _close(plugin.importances, user)
    runner.train(stream[1])
    assert _close(plugin.importances, {name: half * (second[name] + user[name]) for name in first})


def test_an_update_uses_the_latest_outputs_unless_told(new: Tensor) -> None:
    torch.manual_seed(0)
    model, stream = common.mlp().double(), _doubles()
    tasks = [sorted(e.classes_in_this_experience) for e in stream]
    plugin = MASPlugin()
    _stay(plugin, model, stream[:2], ScenarioCrossEntropy(tasks))
    for classes, told in ((tasks[1], None), (tasks[0], tasks[0]), ([1, 7], [1, 7])):
        plugin.update_importance(model, new, told, forget="all")
        assert _close(plugin.importances, _loop(model, new, lambda phi, c=classes: _squares(phi[:, c])))


def test_an_update_survives_saving(new: Tensor) -> None:
    plugin, model, _ = _deployed()
    plugin.update_importance(model, new[:5])
    other = MASPlugin()
    other.load_state_dict(plugin.state_dict())
    for each in (plugin, other):
        each.update_importance(model, new[5:])
    assert common.same(plugin.importances, other.importances)
    assert (plugin.samples, plugin.classes) == (other.samples, other.classes)


def test_an_update_on_a_grown_head() -> None:
    """A head that evaluation has grown since: old classes stay the outputs, new units have no importance."""
    torch.manual_seed(0)
    plugin, stream = MASPlugin(), common.benchmark()
    runner = common.strategy(common.Growing(), [plugin], train_epochs=1)
    runner.train(stream.train_stream[0])
    runner.eval(stream.test_stream)
    plugin.update_importance(runner.model, _inputs(stream.train_stream[0]))
    omega = plugin.importances["head.classifier.weight"]
    assert len(omega) == common.CLASSES
    assert float(omega[:2].max()) > 0.0
    assert float(omega[2:].abs().max()) == 0.0


def test_multi_head_networks_take_task_labels() -> None:
    torch.manual_seed(0)
    plugin, stream = MASPlugin(), common.benchmark("nc-tasks").train_stream
    runner = common.strategy(common.MultiHead(), [plugin], train_epochs=1)
    common.train(runner, stream[:2])
    model = runner.model.eval()
    data = [sample for e in stream[:2] for sample in e.dataset]
    x, y, t = (torch.stack([torch.as_tensor(sample[i]) for sample in data]) for i in range(3))
    assert set(t.tolist()) == {0, 1}
    parameters = dict(model.named_parameters())
    expected = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for x_n, t_n in zip(x.split(1), t.split(1), strict=True):
        gradients = torch.autograd.grad(_squares(model(x_n, t_n)), list(parameters.values()), allow_unused=True)
        for name, g in zip(expected, gradients, strict=True):
            expected[name] += 0.0 if g is None else g.abs() / len(x)
    plugin.update_importance(model, [(x, y, t)], classes=range(common.CLASSES), forget="all")
    assert _close(plugin.importances, expected, rtol=1e-4)


def _digits(seed: int) -> tuple[list[Any], list[tuple[Tensor, Tensor]]]:
    """Two experiences of five digits each with labels 0 to 4, and two test groups: two digits each of the first."""
    digits = load_digits()
    generator = torch.Generator().manual_seed(seed)
    order, rows = torch.randperm(10, generator=generator), torch.randperm(len(digits.target), generator=generator)
    x = torch.tensor(digits.data / 16 - 0.3, dtype=torch.float32)[rows]
    place = order.argsort()[torch.tensor(digits.target)[rows]]
    train = [(place[:1200] // 5) == e for e in (0, 1)]
    sets = [as_classification_dataset(common.labelled(x[:1200][rows], place[:1200][rows] % 5)) for rows in train]
    stream = dataset_benchmark(sets, sets).train_stream
    return list(stream), [(x[:1200][place[:1200] // 2 == g], x[1200:][place[1200:] // 2 == g]) for g in (0, 1)]


def test_adaptation_to_a_user() -> None:
    """Importance of a user's classes alone protects their outputs better than importance of other classes.

    Digits, domain-incremental; each group once in the user's role and once as the others, so that the size of a group's
    importance cancels. Measured is how far the second experience moves the outputs of a group's test data.
    """
    ratios = []
    for seed in range(5):
        (first, second), groups = _digits(seed)
        torch.manual_seed(seed)
        model, plugin = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5)), MASPlugin(0.03)
        runner = common.strategy(model, [plugin], optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
                                 train_mb_size=32, train_epochs=5)  # fmt: skip
        runner.train(first)
        start, state = common.weights(model), plugin.state_dict()
        moved = torch.zeros(2, 2)
        for user in (0, 1):
            model.load_state_dict(start)
            plugin.load_state_dict(state)
            plugin.update_importance(model, groups[user][0], forget="all")
            torch.manual_seed(seed)
            with torch.no_grad():
                before = [model(x) for _, x in groups]
            runner.train(second)
            with torch.no_grad():
                after = [model(x) for _, x in groups]
            moved[user] = torch.stack([(a - b).square().sum(1).mean() for a, b in zip(after, before, strict=True)])
        ratios.append(float(moved.diagonal().sum() / (moved.sum() - moved.diagonal().sum())))
    assert sum(ratios) / len(ratios) < 0.98
    assert sum(ratio < 1.0 for ratio in ratios) >= 4


@pytest.mark.parametrize("empty", [[], torch.zeros(0, common.FEATURES), TensorDataset(torch.zeros(0, 2)), iter(())])
def test_an_update_without_samples_is_an_error(empty: Any, new: Tensor) -> None:
    plugin, model, old = _deployed()
    before = {name: o.clone() for name, o in plugin.importances.items()}
    with pytest.raises(ValueError, match="MASPlugin: update_importance needs at least one sample, got none"):
        plugin.update_importance(model, empty, forget="all")
    plugin.update_importance(model, old)
    assert _close(plugin.importances, before)


def test_what_an_update_refuses(new: Tensor) -> None:
    plugin, model, _ = _deployed()
    with pytest.raises(TypeError, match=r"a batch must be x, \(x,\), \(x, y\) or \(x, y, t\) with tensors, got str"):
        plugin.update_importance(model, ["abc"])
    with pytest.raises(ValueError, match="forget must be one of 'nothing', 'latest', 'all', got True"):
        plugin.update_importance(model, new, forget=True)
    with pytest.raises(RuntimeError, match="needs an experience to have been trained on"):
        MASPlugin().update_importance(model, new)


def test_batches_skip_what_is_empty(x: Tensor) -> None:
    assert [len(b) for b, _ in unlabelled_batches([x[:0], x[:2], (x[:1],)], 4)] == [2, 1]


def test_what_it_cannot_use(x: Tensor) -> None:
    with pytest.raises(TypeError, match=r"Sequential must give logits of shape \(B, K\) with B = 7"):
        _omega(nn.Sequential(nn.Linear(D, 4), nn.Unflatten(1, (2, 2))).double(), x)
    with pytest.raises(ValueError, match="needs at least one sample, but the experience's dataset is empty"):
        _omega(nn.Linear(D, K).double(), x[:0])
    with pytest.raises(ValueError, match="Flatten has no trainable parameters"):
        _omega(nn.Flatten(), x)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mas_lambda": -1.0}, ValueError, r"MASPlugin: mas_lambda must be in \[0, inf\), got -1.0"),
        ({"mas_lambda": "1"}, TypeError, "mas_lambda must be a number, got '1'"),
        ({"accumulate": "ema"}, ValueError, "accumulate must be one of 'sum', 'mean', got 'ema'"),
        ({"outputs": "head"}, ValueError, "outputs must be one of 'trained', 'all', got 'head'"),
        ({"heads": "none"}, ValueError, "heads must be one of 'include', 'exclude', got 'none'"),
        ({"batch_size": 0}, ValueError, "batch_size must be an integer >= 1, got 0"),
    ],
)
def test_bad_hyper_parameters(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MASPlugin(**arguments)
