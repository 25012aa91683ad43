"""Progressive networks: earlier columns stay exact, are read as they answered, and evaluation makes none."""

import copy
import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import cl_ext  # noqa: F401
from cl_ext.models.columns import ProgressiveNetwork, progressive
from cl_ext.models.networks import Network, cnn_features, resnet18_features
from cl_ext.nn.lateral import AdapterLateral, lateral
from cl_ext.nn.passes import evaluation_mode
from cl_ext.plugins import PNNPlugin

import pytest
import torch
from avalanche.training import Naive
from torch import Tensor, nn
from torch.nn import functional

from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
ADAPTERS = ["none", "linear", "mlp"]
each_adapter = pytest.mark.parametrize("adapter", ADAPTERS)


def mlp() -> nn.Module:
    layers = nn.Linear(common.FEATURES, 7), nn.ReLU(inplace=True), nn.Linear(7, 5), nn.ReLU()
    return nn.Sequential(*layers, nn.Linear(5, common.CLASSES))


def normed() -> nn.Module:
    first = nn.Linear(common.FEATURES, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Dropout(0.3)
    return nn.Sequential(*first, nn.Linear(7, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, common.CLASSES))


def cnn() -> nn.Module:
    return Network(cnn_features(2, 8, 3), nn.Linear(128, common.CLASSES))


def experience(task: int, classes: list[int]) -> Any:
    return SimpleNamespace(task_labels=[task], classes_in_this_experience=classes)


def with_tasks(model: nn.Module, adapter: Any = "mlp", tasks: dict[int, list[int]] | None = None) -> ProgressiveNetwork:
    """A progressive network of three tasks whose columns differ, in eval mode."""
    torch.manual_seed(1)
    network, generator = progressive(model), torch.Generator().manual_seed(4)
    for task, classes in (tasks or {7: [0, 1], 3: [2, 3, 4], 9: [5, 6]}).items():
        network.train().adaptation(experience(task, classes))
        network.begin(task, adapter, generator)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network.eval()


def trained(
    network: Any, plugins: list[Any] | None = None, experiences: int = common.EXPERIENCES, adapter: Any = "mlp",
    evaluate: bool = False, optimizer: str = "sgd", kind: Any = ProgressiveNetwork, after: Any = lambda runner: None,
) -> Naive:  # fmt: skip
    """A strategy trained on tasks; with `evaluate` the whole test stream is evaluated after each of them."""
    torch.manual_seed(0)
    model = progressive(network())
    model.__class__ = kind
    options = {"weight_decay": 0.05}
    made = (
        torch.optim.Adam(model.parameters(), lr=0.01, **options)
        if optimizer == "adam"
        else torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, **options)
    )
    runner = common.strategy(model, plugins if plugins is not None else [PNNPlugin(adapter)], optimizer=made)
    stream = common.benchmark("nc-tasks")

    def done() -> None:
        if evaluate:
            runner.eval(stream.test_stream)
        after(runner)

    common.train(runner, stream.train_stream[:experiences], after=done)
    return runner


# ---- N1: columns before k stay bit for bit, and so do their answers ----


@each_adapter
@pytest.mark.parametrize("network", [mlp, normed])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_earlier_columns_and_answers_are_exact(adapter: Any, network: Any, optimizer: str) -> None:
    """Under weight decay with momentum or Adam, with batch norm and dropout."""
    x = torch.randn(9, common.FEATURES, generator=torch.Generator().manual_seed(2))
    seen: list[tuple[dict[str, Tensor], list[Tensor]]] = []

    def look(runner: Naive) -> None:
        model: Any = runner.model
        with evaluation_mode(model), torch.no_grad():
            answers = [model(x, task) for task in model.tasks]
        seen.append((common.weights(model), answers))

    model: Any = trained(network, adapter=adapter, optimizer=optimizer, after=look).model
    final, answers = seen[-1]
    for task, (state, then) in enumerate(seen[:-1]):
        for name in (name for name in state if name.startswith(f"columns.{task}.") or f"heads.heads.{task}." in name):
            assert torch.equal(state[name], final[name]), name
        own = model.heads[task].classes
        assert torch.equal(then[task][:, own], answers[task][:, own])
    names = [f"columns.{k}.layers.0.weight" for k in range(4)]
    assert all(not torch.equal(final[a], final[b]) for a, b in pairwise(names))


# ---- N2: how many parameters a column has ----


@each_adapter
def test_parameters_of_a_column_are_the_formulas(adapter: Any) -> None:
    network = with_tasks(mlp(), adapter)
    n = [common.FEATURES, 7, 5]
    for index, outputs in enumerate([2, 3, 2]):
        sizes = [*n, outputs]
        own = sum(sizes[i] * sizes[i - 1] + sizes[i] for i in (1, 2))
        columns = index
        added = 0
        if columns and adapter == "linear":
            added = sum(sizes[i] * columns * sizes[i - 1] for i in (2, 3))
        if columns and adapter == "mlp":
            added = sum(sizes[i - 1] * columns * sizes[i - 1] + sizes[i] * sizes[i - 1] + columns for i in (2, 3))
        assert sum(p.numel() for p in network.columns[index].parameters()) == own + added
        assert sum(p.numel() for p in network.heads[[7, 3, 9][index]].parameters()) == 5 * outputs + outputs


def test_a_flattened_map_is_projected_channel_by_channel() -> None:
    """V has the channels' size, not the flattened maps': it goes over positions."""
    column = with_tasks(cnn()).column(2)
    found = {name: tuple(column.laterals[name].down.shape) for name in column.laterals}
    assert found == {"1": (3, 6), "2": (6, 12), "out": (128, 256)}


# ---- N3: without what laterals add a column is a network of its own ----


@pytest.mark.parametrize("adapter", ["linear", "mlp"])
@pytest.mark.parametrize("network", [mlp, cnn])
def test_with_u_zero_a_column_is_an_independent_network(adapter: Any, network: Any) -> None:
    both = with_tasks(network(), adapter)
    shape = (common.FEATURES,) if network is mlp else (2, 8, 8)
    x, y = torch.randn(6, *shape), torch.tensor([5, 6, 5, 5, 6, 6])
    column, head = both.column(2), both.heads[9]
    with torch.no_grad():
        for each in column.laterals.values():
            each.up.weight.zero_()
    h = column.before(x)
    alone = nn.Sequential(*(nn.Sequential(a, b) for a, b in zip(column.layers, column.after, strict=True)))
    alone = copy.deepcopy(alone)
    classifier = nn.Linear(head.weight.shape[1], 2)
    classifier.weight, classifier.bias = nn.Parameter(head.weight.clone()), nn.Parameter(head.bias.clone())
    expected = classifier(alone(h))
    found = both(x, 9)[:, [5, 6]]
    assert torch.equal(found, expected)
    functional.cross_entropy(found, y - 5).backward()
    functional.cross_entropy(expected, y - 5).backward()
    for mine, theirs in zip([*column.layers.parameters()], [*alone.parameters()], strict=True):
        assert torch.equal(mine.grad, theirs.grad)


def test_without_adapters_it_is_a_network_a_task() -> None:
    """Bit for bit the networks that each task alone would have given, from the same initial weights."""
    runner = trained(mlp, adapter="none")
    model: Any = runner.model
    x = torch.randn(5, common.FEATURES)
    for task in range(common.EXPERIENCES):
        torch.manual_seed(0)
        own = progressive(mlp())
        optimizer = torch.optim.SGD(own.parameters(), lr=0.05, momentum=0.9, weight_decay=0.05)
        alone = common.strategy(own, [PNNPlugin()], optimizer=optimizer)
        torch.manual_seed(task)
        alone.train(common.benchmark("nc-tasks").train_stream[task], eval_streams=[])
        for a, b in zip(model.columns[task].parameters(), own.columns[0].parameters(), strict=True):
            assert torch.equal(a, b)
        classes = own.heads[task].classes
        assert torch.equal(model.eval()(x, task)[:, classes], own.eval()(x, task)[:, classes])


def test_one_task_equals_plain_training() -> None:
    """The ordinary network itself, trained by plain Naive on the task's outputs."""
    runner = trained(mlp, experiences=1)
    torch.manual_seed(0)
    plain = mlp()

    class OwnOutputs(nn.Module):
        def forward(self, logits: Tensor, y: Tensor) -> Tensor:
            return functional.cross_entropy(logits[:, :2], y)

    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, weight_decay=0.05)
    naive = common.strategy(plain, [], criterion=OwnOutputs(), optimizer=optimizer)
    torch.manual_seed(0)
    naive.train(common.benchmark("nc-tasks").train_stream[0], eval_streams=[])
    model: Any = runner.model
    assert torch.equal(model.columns[0].layers[0].weight, plain[0].weight)
    assert torch.equal(model.columns[0].layers[1].bias, plain[2].bias)
    assert torch.equal(model.heads[0].weight, plain[4].weight[:2])


# ---- N4: evaluation makes no columns ----


class Eager(ProgressiveNetwork):
    """Negative control: makes heads and columns wherever it adapts, as Avalanche's PNN does."""

    def adaptation(self, experience: Any) -> None:
        training = self.training
        self.train()
        super().adaptation(experience)
        self.begin(experience.task_labels[0], "mlp", torch.Generator().manual_seed(0))
        self.train(training)


@each_adapter
def test_evaluating_tasks_to_come_changes_nothing(adapter: Any) -> None:
    plain, evaluated = (trained(normed, adapter=adapter, evaluate=evaluate) for evaluate in (False, True))
    assert common.same(common.weights(plain.model), common.weights(evaluated.model))


def test_columns_made_by_evaluation_are_caught() -> None:
    counts: list[int] = []

    def look(runner: Naive) -> None:
        counts.append(len(runner.model.columns))  # type: ignore[arg-type]

    plain = trained(mlp, kind=Eager, after=look, experiences=2)
    evaluated = trained(mlp, kind=Eager, evaluate=True, after=look, experiences=2)
    assert counts == [1, 2, 4, 4]
    columns: list[Any] = [runner.model.columns[1] for runner in (plain, evaluated)]
    began = evaluated.model.initial.get("column")["layers.0.weight"]  # type: ignore[operator, union-attr]
    assert not torch.equal(columns[0].layers[0].weight, began)
    assert torch.equal(columns[1].layers[0].weight, began)  # its turn came when it was frozen already


def test_a_task_without_a_column_has_no_answer() -> None:
    network = with_tasks(mlp())
    logits = network(torch.randn(3, common.FEATURES), 1)
    assert torch.isneginf(logits).all()
    assert len(network.columns) == 3


# ---- N5: no gradient reaches an earlier column ----


@each_adapter
def test_no_gradient_reaches_an_earlier_column(adapter: Any) -> None:
    network = with_tasks(mlp(), adapter).train()
    assert all(parameter.requires_grad for parameter in network.parameters())
    x, y = torch.randn(8, common.FEATURES), torch.randint(5, 7, (8,))
    functional.cross_entropy(network(x, 9), y).backward()
    reached = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert reached == {
        name for name, _ in network.named_parameters() if name.startswith("columns.2.") or ".9." in name
    }  # fmt: skip


# ---- N6: earlier columns are read as they answer ----


@each_adapter
@pytest.mark.parametrize("network", [mlp, normed])
def test_earlier_columns_inside_are_those_that_answered(adapter: Any, network: Any) -> None:
    """Dropout and batch norm in train mode for the newest column."""
    both = with_tasks(network(), adapter).train()
    x = torch.randn(8, common.FEATURES)
    seen: dict[int, list[Tensor]] = {}
    hooks = [
        column.after[-1].register_forward_hook(lambda _, i, out, k=k: seen.setdefault(k, []).append(out.clone()))
        for k, column in enumerate(both.columns)
    ]
    both(x, 9)
    inside = {k: values[0] for k, values in seen.items()}
    seen.clear()
    both.eval()
    both(x, 7)
    assert torch.equal(seen[0][-1], inside[0])
    both(x, 3)
    assert torch.equal(seen[1][-1], inside[1])
    for hook in hooks:
        hook.remove()


def test_columns_recomputed_without_their_laterals_are_caught() -> None:
    """Negative control: a public port lets column 3 read features that column 2 never had."""
    network = with_tasks(mlp(), "linear")
    x = torch.randn(8, common.FEATURES)
    first = network.column(0).hidden(x, [])
    second = network.column(1).hidden(x, [first])
    wrong = network.column(1).bare().hidden(x, [first])
    third = network.column(2)
    own = network.heads[9](third.hidden(x, [first, second])[-1])
    answer = network(x, 9)
    assert torch.equal(network.heads.spread(own + third.out([first, second]), 9), answer)
    assert not torch.allclose((own + third.out([first, wrong]))[:, 0], answer[:, 5], atol=1e-3)


# ---- the laterals, written out ----


@pytest.mark.parametrize("adapter", ["linear", "mlp"])
def test_the_equations_for_vectors(adapter: Any) -> None:
    """h_2^3 of the third column by loops over columns and units."""
    network = with_tasks(mlp(), adapter)
    x = torch.randn(4, common.FEATURES)
    first = network.column(0).hidden(x, [])
    second = network.column(1).hidden(x, [first])
    column = network.column(2)
    own = torch.relu(column.layers[0](x))
    added = column.laterals["1"]
    below = [first[0], second[0]]
    total = column.layers[1](own)
    if adapter == "linear":
        for j, h in enumerate(below):
            total = total + h @ added.up.weight[:, 7 * j : 7 * (j + 1)].T
    else:
        v = sum(added.alpha[j] * (h @ added.down[:, 7 * j : 7 * (j + 1)].T) for j, h in enumerate(below))
        total = total + torch.relu(v) @ added.up.weight.T
    assert torch.allclose(torch.relu(total), column.hidden(x, [first, second])[1], atol=1e-6)


@pytest.mark.parametrize("adapter", ["linear", "mlp"])
def test_the_equations_for_maps(adapter: Any) -> None:
    """A strided convolution's lateral has its geometry; V is a 1 x 1 convolution, by a loop over positions."""
    reader = nn.Conv2d(3, 5, 3, stride=2, padding=1)
    added: Any = lateral(adapter, reader, 2, 3, torch.Generator().manual_seed(0))
    below = [torch.randn(2, 3, 6, 6) for _ in range(2)]
    if adapter == "linear":
        expected = sum(
            functional.conv2d(h, added.up.weight[:, 3 * j : 3 * j + 3], stride=2, padding=1)
            for j, h in enumerate(below)
        )
    else:
        v = torch.zeros(2, 3, 6, 6)
        for row in range(6):
            for at in range(6):
                stacked = torch.cat([added.alpha[j] * h[:, :, row, at] for j, h in enumerate(below)], 1)
                v[:, :, row, at] = torch.relu(stacked @ added.down.T)
        expected = functional.conv2d(v, added.up.weight, stride=2, padding=1)
    assert torch.allclose(added(below), expected, atol=1e-6)
    assert added(below).shape == reader(below[0]).shape


def test_a_flattened_maps_lateral_is_that_of_its_maps() -> None:
    added: Any = lateral("mlp", nn.Linear(12, 5), 2, 3, torch.Generator().manual_seed(0))
    maps = [torch.randn(2, 3, 2, 2) for _ in range(2)]
    v = functional.conv2d(
        torch.cat([a * h for a, h in zip(added.alpha, maps, strict=True)], 1), added.down[..., None, None]
    )
    assert torch.allclose(added([h.flatten(1) for h in maps]), torch.relu(v).flatten(1) @ added.up.weight.T, atol=1e-6)


def test_alphas_are_small_and_differ() -> None:
    added = AdapterLateral(nn.Linear(4, 3), 5, 4, torch.Generator().manual_seed(0))
    values = added.alpha.tolist()
    assert all(0 < value < 0.1 for value in values)
    assert len(set(values)) == 5


# ---- the network ----


@each_adapter
@pytest.mark.parametrize("network", [mlp, normed, cnn])
def test_a_loaded_network_answers_for_every_task(adapter: Any, network: Any) -> None:
    """Labels 7, 3, 9 and heads of different sizes; the fresh network has other weights."""
    saved = with_tasks(network(), adapter)
    torch.manual_seed(5)
    fresh = progressive(network())
    fresh.load_state_dict(saved.state_dict())
    shape = (2, 8, 8) if network is cnn else (common.FEATURES,)
    x = torch.randn(6, *shape)
    assert fresh.tasks == [7, 3, 9]
    for task, classes in ((7, [0, 1]), (3, [2, 3, 4]), (9, [5, 6])):
        logits = fresh.eval()(x, task)
        assert torch.equal(logits, saved(x, task))
        assert torch.isfinite(logits[:, classes]).all()
        others = [c for c in range(logits.shape[1]) if c not in classes]
        assert torch.isneginf(logits[:, others]).all()
    mixed = torch.tensor([7, 3, 9, 9, 3, 7])
    assert torch.allclose(fresh(x, mixed)[1], saved(x, 3)[1], atol=1e-6)
    fresh.train().adaptation(experience(1, [7]))
    fresh.begin(1, adapter, torch.Generator())
    assert fresh.columns[3].layers[0].weight.equal(saved.initial.get("column")["layers.0.weight"])


def test_laterals_come_from_the_seed_alone() -> None:
    networks: list[Any] = [trained(mlp, [PNNPlugin(seed=seed)], experiences=2).model for seed in (0, 0, 1)]
    assert common.same(common.weights(networks[0]), common.weights(networks[1]))
    model = progressive(mlp()).train()
    downs = []
    for seed in (0, 1):
        fresh, state = copy.deepcopy(model), torch.get_rng_state()
        for task in (0, 1):
            fresh.adaptation(experience(task, [task]))
            fresh.begin(task, "mlp", torch.Generator().manual_seed(seed))
        assert torch.equal(state, torch.get_rng_state())
        downs.append(fresh.column(1).laterals["1"].down)
    assert not torch.equal(*downs)
    assert downs[0].abs().max() <= 1 / math.sqrt(7)


def test_its_bytes_are_the_initial_weights() -> None:
    """The columns are parameters of the network, and counted there."""
    plugin = PNNPlugin()
    runner = trained(mlp, [plugin])
    model: Any = runner.model
    first = [tensor for name, tensor in model.column(0).state_dict().items() if not name.startswith("laterals")]
    assert plugin.extra_bytes() == sum(tensor.nbytes for tensor in first)


def test_only_the_newest_column_is_trained() -> None:
    model: Any = trained(mlp).model
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {
        name for name, _ in model.named_parameters() if not name.startswith(("columns.3.", "heads.heads.3."))
    }  # fmt: skip


# ---- refusals ----


def test_networks_that_cannot_be_columns_are_one_sentence() -> None:
    with pytest.raises(TypeError, match=r"progressive takes an nn\.Sequential .* not a Growing"):
        progressive(common.Growing())
    with pytest.raises(TypeError, match="a BasicBlock; a chain takes"):
        progressive(Network(resnet18_features(2, 2), nn.Linear(16, 4)))
    with pytest.raises(ValueError, match="PNNPlugin: adapter must be one of 'none', 'linear', 'mlp', got 'deep'"):
        PNNPlugin("deep")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed must be an integer >= 0, got -1"):
        PNNPlugin(seed=-1)
    with pytest.raises(TypeError, match="needs a progressive network"):
        common.run([PNNPlugin()], kind="nc-tasks")


def test_a_task_label_of_its_own_is_needed() -> None:
    with pytest.raises(ValueError, match="needs a task label of its own for each experience; 0 was the label"):
        common.run([PNNPlugin()], lambda: progressive(mlp()))
