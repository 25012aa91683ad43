"""DEN phase by phase: what each may change, what it must leave bit-equal, and the faults of public code as controls."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

from cl_ext.models.expansion import ExpandableNetwork, expandable
from cl_ext.nn.reachability import connections, reached
from cl_ext.nn.splitting import drift
from cl_ext.nn.stamped import Stamped
from cl_ext.plugins import DENPlugin, den_phases, den_rules
from cl_ext.plugins.den_rules import Before, Rules
from cl_ext.streams.scenario import TensorScenario
from cl_ext.streams.tensors import ImageTensors, tensor_dataset

import pytest
import torch
from torch import Tensor, nn

from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
X = torch.randn(13, common.FEATURES, generator=torch.Generator().manual_seed(4))
SIGMA = 0.07  # with it each layer has units on both sides
OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "momentum and decay": lambda m: torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01),
    "adam and decay": lambda m: torch.optim.Adam(m.parameters(), lr=0.01, weight_decay=0.01),
}
optimizers = pytest.mark.parametrize("optimizer", OPTIMIZERS)


def deep() -> nn.Module:
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(common.FEATURES, 12), nn.ReLU(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, common.CLASSES)
    )


def normed() -> nn.Module:
    """Two hidden layers with batch norm, the second one without biases."""
    return nn.Sequential(
        nn.Linear(common.FEATURES, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.1), nn.Linear(12, 9, bias=False),
        nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, common.CLASSES),
    )  # fmt: skip


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


class Watched(DENPlugin):
    """Keeps the network as it was before and after each phase of the latest task.

    Attributes:
        phases: (name, before, after), deep copies.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"mu": 1e-3, "tau": -1.0, "sigma": 0.05, "k": 3} | options)
        self.phases: list[tuple[str, ExpandableNetwork, ExpandableNetwork]] = []
        self.chosen: list[Tensor] = []

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.phases = []
        super().before_training_exp(strategy, *args, **kwargs)
        self._main = copy.deepcopy(strategy.model)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.phases.append(("main", self._main, copy.deepcopy(strategy.model)))
        super().after_training_exp(strategy, *args, **kwargs)

    def _run(self, strategy: Any, *args: Any) -> None:
        names = ["head", "expand", "drift", "retrain"]
        if not self.expand:
            names.remove("expand")
        name = names[len([phase for phase in self.phases if phase[0] != "main"])]
        before = copy.deepcopy(strategy.model)
        super()._run(strategy, *args)
        self.phases.append((name, before, copy.deepcopy(strategy.model)))

    def phase(self, name: str) -> tuple[ExpandableNetwork, ExpandableNetwork]:
        return next((before, after) for each, before, after in self.phases if each == name)


def sparsify(network: ExpandableNetwork, keep: float = 0.25) -> None:
    """Exact zeros, so that selection has something to leave out."""
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for stage in network.stages:
            weight = stage.layer.weight
            weight.mul_(torch.rand(weight.shape, generator=generator) < keep)
        for tensor in (network.heads.template_weight,):
            tensor.mul_(torch.rand(tensor.shape, generator=generator) < keep)


def trained(
    plugin: DENPlugin, network: Callable[[], nn.Module] = deep, optimizer: str = "momentum and decay", tasks: int = 2,
    before: Callable[[int, ExpandableNetwork], None] = lambda number, model: None, **options: Any,
) -> ExpandableNetwork:  # fmt: skip
    """Trains on some tasks; `before` is called before each with its number from 0."""
    torch.manual_seed(0)
    model = expandable(network())
    runner = common.strategy(model, [plugin], optimizer=OPTIMIZERS[optimizer](model), **options)
    for number, experience in enumerate(common.benchmark("nc-tasks").train_stream[:tasks]):
        before(number, model)
        torch.manual_seed(number)
        runner.train(experience)
    return model


def sparse_at(task: int) -> Callable[[int, ExpandableNetwork], None]:
    return lambda number, model: sparsify(model) if number == task else None


def answers(network: ExpandableNetwork, *tasks: int) -> list[Tensor]:
    """The outputs of tasks over their own classes, in eval mode."""
    network = copy.deepcopy(network).eval()
    with torch.no_grad():
        return [network(X, task)[:, network.heads[task].classes] for task in tasks]


def noted(plugin: DENPlugin, task: int, quantity: str) -> list[Any]:
    """What the history has of a task, by hidden layer."""
    return [layer[quantity] for layer in plugin.history[task]["layers"].values()]


def all_equal(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# ---- the first task ----------------------------------------------------------------------------------------------


def test_a_step_of_the_first_task_by_hand() -> None:
    """W - lr (gradient + l2 W), then soft(lr mu); biases without either."""
    plugin = DENPlugin(mu=0.5, l2=0.1)
    torch.manual_seed(0)
    model = expandable(deep())
    experience = common.benchmark("nc-tasks").train_stream[0]
    options = {"train_epochs": 1, "train_mb_size": len(experience.dataset)}
    runner = common.strategy(model, [plugin], optimizer=torch.optim.SGD(model.parameters(), lr=0.1), **options)
    plain = expandable(nn.Sequential(*copy.deepcopy(model.features), nn.Linear(9, common.CLASSES)))
    plain.heads = copy.deepcopy(model.heads)
    plain.heads.add(0, [0, 1])
    runner.train(experience)
    x = torch.stack([sample[0] for sample in experience.dataset])
    y = torch.tensor([sample[1] for sample in experience.dataset])
    nn.functional.cross_entropy(plain(x, 0), y).backward()
    zeros = 0
    for ours, theirs in zip(
        [*model.features.parameters(), *model.heads[0].parameters()],
        [*plain.features.parameters(), *plain.heads[0].parameters()],
        strict=True,
    ):
        assert theirs.grad is not None
        stepped = theirs.detach() - 0.1 * theirs.grad
        if theirs.dim() == 2:
            stepped = stepped - 0.1 * 0.1 * theirs.detach()
            stepped = stepped.sign() * (stepped.abs() - 0.05).clamp_min(0)
            zeros += int((stepped == 0).sum())
        assert torch.allclose(ours, stepped, atol=1e-6)
    assert zeros
    assert noted(plugin, 0, "units") == [12, 9]


def test_prox_step_replaces_the_learning_rate() -> None:
    sparse = trained(DENPlugin(mu=1.0, prox_step=0.03), optimizer="adam and decay", tasks=1)
    dense = trained(DENPlugin(mu=1.0, prox_step=1e-9), optimizer="adam and decay", tasks=1)
    assert sum(int((stage.layer.weight == 0).sum()) for stage in sparse.stages) > 20
    assert all(bool((stage.layer.weight != 0).all()) for stage in dense.stages)


# ---- D1: the sparse head -----------------------------------------------------------------------------------------


@optimizers
@pytest.mark.parametrize("network", [deep, normed])
def test_the_head_phase_leaves_the_features_bit_equal(network: Any, optimizer: str) -> None:
    plugin = Watched()
    trained(plugin, network, optimizer)
    before, after = plugin.phase("head")
    assert common.same(state(before.features), state(after.features))  # statistics of batch norm, too
    assert common.same(state(before.heads[0]), state(after.heads[0]))
    assert not torch.equal(before.heads[1].weight, after.heads[1].weight)


# ---- D2, D3: selection -------------------------------------------------------------------------------------------


@optimizers
@pytest.mark.parametrize("network", [deep, normed])
def test_selective_retraining_changes_the_block_of_selected_units_alone(network: Any, optimizer: str) -> None:
    plugin = Watched(mu=0.03)
    trained(plugin, network, optimizer, before=sparse_at(1))
    before, after = plugin.phase("main")
    head = before.heads[1].weight
    chosen = reached([connections(stage.layer.weight) for stage in before.stages], connections(head))
    assert noted(plugin, 1, "selected") == [int(units.sum()) for units in chosen]
    assert all(0 < int(units.sum()) < len(units) for units in chosen)
    inputs = torch.ones(common.FEATURES, dtype=torch.bool)
    for stage, later, units in zip(before.stages, after.stages, chosen, strict=True):
        block = units[:, None] & inputs[None, :]
        old, new = stage.layer.weight, later.layer.weight
        assert torch.equal(old[~block], new[~block])
        assert (old[block] != new[block]).float().mean() > 0.5
        if stage.layer.bias is not None and later.layer.bias is not None:
            assert torch.equal(stage.layer.bias[~units], later.layer.bias[~units])
            assert (stage.layer.bias[units] != later.layer.bias[units]).any()
        inputs = units
    assert torch.equal(head[:, ~inputs], after.heads[1].weight[:, ~inputs])
    assert (head[:, inputs] != after.heads[1].weight[:, inputs]).any()
    assert common.same(state(before.heads[0]), state(after.heads[0]))


def test_the_sub_network_alone_gives_the_same() -> None:
    """Units that were not selected have weights of exactly 0 into selected ones: leaving them out changes nothing."""
    plugin = Watched(mu=0.03)
    trained(plugin, before=sparse_at(1))
    before, after = plugin.phase("main")
    head = after.heads[1]
    layers = [connections(stage.layer.weight) for stage in before.stages]
    chosen = reached(layers, connections(before.heads[1].weight))
    z, inputs = X, torch.ones(common.FEATURES, dtype=torch.bool)
    for stage, units in zip(after.stages, chosen, strict=True):
        assert stage.layer.bias is not None
        z = torch.relu(z @ stage.layer.weight[units][:, inputs].T + stage.layer.bias[units])
        inputs = units
    assert not bool(inputs.all())
    alone = z @ head.weight[:, inputs].T + head.bias
    assert torch.allclose(alone, answers(after, 1)[0], atol=1e-6)


def test_a_head_of_zeros_selects_everything() -> None:
    plugin = Watched(mu=50.0)
    trained(plugin)
    before, _ = plugin.phase("main")
    assert not before.heads[1].weight.any()
    assert noted(plugin, 1, "selected") == [12, 9]
    assert not plugin.history[1]["head_reads"]


def test_eps_leaves_out_small_weights_whatever_their_sign() -> None:
    plugin = Watched(eps=0.2, mu=0.0)
    trained(plugin)
    before, _ = plugin.phase("main")
    head, first = before.heads[1].weight.detach(), before.stages[1].layer.weight.detach()
    top = head.abs().amax(0) > 0.2
    assert noted(plugin, 1, "selected") == [int((first[top].abs() > 0.2).any(0).sum()), int(top.sum())]
    assert (head > 0.2).any(0).sum() < top.sum()  # without the absolute value (a public port) it is less


# ---- D5, D6, D10: expansion --------------------------------------------------------------------------------------


@optimizers
@pytest.mark.parametrize("network", [deep, normed])
def test_expansion_leaves_old_weights_and_older_tasks_bit_equal(network: Any, optimizer: str) -> None:
    plugin = Watched()
    trained(plugin, network, optimizer, tasks=3)
    main, expanded = plugin.phase("main")[1], plugin.phase("expand")[1]
    grown = False
    for old, new in zip(main.stages, expanded.stages, strict=True):
        n, m = old.layer.weight.shape
        assert torch.equal(old.layer.weight, new.layer.weight[:n, :m])
        grown |= new.units > n and bool(new.layer.weight[:n, m:].any())
        if old.layer.bias is not None and new.layer.bias is not None:
            assert torch.equal(old.layer.bias, new.layer.bias[:n])
    assert grown  # old units read new ones, and only time stamps hide it
    assert all_equal(answers(main, 0, 1), answers(expanded, 0, 1))
    assert not torch.equal(main.heads[2].weight, expanded.heads[2].weight[:, : main.heads[2].weight.shape[1]])


def test_new_units_change_nothing_before_they_are_trained() -> None:
    plugin = Watched()
    trained(plugin)
    main, before = plugin.phase("main")[1], plugin.phase("expand")[0]
    assert before.stages[0].units == main.stages[0].units + 3
    assert torch.allclose(answers(main, 1)[0], answers(before, 1)[0], atol=1e-6)


@pytest.mark.parametrize(("network", "gamma"), [(deep, 0.5), (normed, 1.0)])
def test_units_taken_out_are_those_of_zero_groups_and_say_nothing(network: Any, gamma: float) -> None:
    plugin = Watched(gamma=gamma, k=8, iterations=30)
    trained(plugin, network)
    main, expanded, removed = plugin.phase("main")[1], plugin.phase("expand")[1], plugin.phase("drift")[0]
    added = 0
    for index, (old, new, left) in enumerate(zip(main.stages, expanded.stages, removed.stages, strict=True)):
        zero = (new.layer.weight[old.units :] == 0).all(1)
        assert noted(plugin, 1, "added")[index] == int((~zero).sum()) == left.units - old.units
        added += int((~zero).sum())
    assert 0 < added < 16
    # in exact arithmetic the same; batch norm of a unit of zeros says exactly 0
    assert torch.allclose(answers(expanded, 1)[0], answers(removed, 1)[0], atol=1e-6)


class Grown:
    """A network with one stage of four old units and three new ones, the second of which reads nothing."""

    def __init__(self, network: Callable[[], nn.Module] = common.mlp) -> None:
        torch.manual_seed(0)
        self.network = expandable(network()).eval()
        self.head = self.network.heads.add(0, [0, 1])
        self.before = Before.of(self.network.stages)
        den_phases.grow(self.network, self.network.stages, self.head, 3, torch.Generator().manual_seed(1))
        with torch.no_grad():
            self.head.weight[:, 16:] = torch.tensor([[1.0], [-1.0]])
            self.stage.layer.weight[17] = 1e-4
            assert self.stage.layer.bias is not None
            self.stage.layer.bias[16:] = 0.7

    @property
    def stage(self) -> Any:
        return self.network.stages[0]

    def shrink(self) -> None:
        den_rules.shrinking_new(self.network.stages, self.head, self.before, mu=0.001, gamma=0.001)(1.0)

    def remove(self) -> list[int]:
        return den_phases.remove_silent(self.network, self.network.stages, self.head, self.before)


@pytest.mark.parametrize("network", [common.mlp, common.normed])
def test_the_trap_of_a_positive_bias(network: Any) -> None:
    """A unit of zero weights and positive bias says a constant: its bias is zeroed with the group, and then removed."""
    grown = Grown(network)
    if grown.stage.norm is not None:
        grown.stage.norm[1].bias.data[16:] = 0.5
        grown.stage.norm[1].running_mean[16:] = -0.5
    grown.shrink()
    bias = grown.stage.layer.bias.detach()
    assert bias[17] == 0
    assert float(bias[16]) == pytest.approx(0.7)
    assert not grown.stage.layer.weight[17].any()
    expected = answers(grown.network, 0)[0]
    assert grown.remove() == [2]
    assert grown.stage.units == 18
    assert grown.network.heads.template_weight.shape[1] == 18
    assert torch.allclose(answers(grown.network, 0)[0], expected, atol=1e-6)


def test_removal_that_ignores_the_bias_is_caught() -> None:
    """Negative control: the official code looks at the incoming weights alone."""
    grown = Grown()
    with torch.no_grad():
        grown.stage.layer.weight[17] = 0.0
    expected = answers(grown.network, 0)[0]
    assert grown.remove() == [2]
    assert (answers(grown.network, 0)[0] - expected).abs().max() > 0.5


@pytest.mark.parametrize(
    ("options", "added"),
    [
        ({"tau": 1e9}, [0, 0]),
        ({"tau": -1.0, "gamma": 0.0, "mu": 0.0}, [3, 3]),
        ({"tau": -1.0, "gamma": 100.0}, [0, 0]),
        ({"tau": -1.0, "expand": False}, [0, 0]),
        ({"tau": 1e9, "constant": 4, "gamma": 100.0}, [4, 4]),
    ],
)
def test_how_many_units_are_added(options: dict[str, Any], added: list[int]) -> None:
    plugin = DENPlugin(**{"mu": 1e-3, "k": 3, "split": False} | options)
    network = trained(plugin)
    assert noted(plugin, 1, "added") == added
    assert [stage.units for stage in network.stages] == [12 + added[0], 9 + added[1]]
    tried = "constant" in options or (options["tau"] < 0 and "expand" not in options)  # also where all is taken out
    assert plugin.history[1]["grew"] == tried


def test_the_gate_is_the_mean_loss_over_all_training_data() -> None:
    plugin = Watched()
    trained(plugin, normed)
    model = plugin.phase("main")[1].eval()
    losses = []
    for x, y, _ in common.benchmark("nc-tasks").train_stream[1].dataset:
        with torch.no_grad():
            losses.append(float(nn.functional.cross_entropy(model(x[None], 1), torch.tensor([y]))))
    assert plugin.history[1]["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)


# ---- D7, D8: split -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outgoing", ["replace", "duplicate"])
@pytest.mark.parametrize("network", [deep, normed])
def test_units_above_sigma_are_split(network: Any, outgoing: str) -> None:
    plugin = Watched(sigma=SIGMA, split_outgoing=outgoing)
    trained(plugin, network)
    start, drifted, split = plugin.phase("head")[0], plugin.phase("drift")[1], plugin.phase("retrain")[0]
    check_split(start, drifted, split, SIGMA, noted(plugin, 1, "split"))


def check_split(start: Any, drifted: Any, split: Any, sigma: float, counts: list[int]) -> None:
    """The split set from the norms of differences, unit by unit; originals as at the start; copies as drifted.

    A copy of the second layer reads inputs of which some are split, too: each as its original or its copy, in all.
    """
    inputs: list[int] = []
    for index, (old, now, new) in enumerate(zip(start.stages, drifted.stages, split.stages, strict=True)):
        n, m = old.layer.weight.shape
        rows = []
        for i in range(n):
            squares = (now.layer.weight[i, :m] - old.layer.weight[i]).square().sum()
            if old.layer.bias is not None:
                squares = squares + (now.layer.bias[i] - old.layer.bias[i]).square()
            if float(squares.detach().sqrt()) > sigma:
                rows.append(i)
        assert counts[index] == len(rows), "the split set"
        assert 0 < len(rows) < n
        assert new.units == now.units + len(rows)
        assert torch.equal(new.layer.weight[rows][:, :m], old.layer.weight[rows]), "originals"
        assert not new.layer.weight[rows][:, m:].any()
        copies = new.layer.weight[now.units :].clone()
        width = now.layer.weight.shape[1]
        if inputs:
            read = copies[:, width:]
            assert torch.equal(read, now.layer.weight[rows][:, inputs])
            copies[:, inputs] = read
        assert torch.equal(copies[:, :width], now.layer.weight[rows]), "copies"
        if old.layer.bias is not None:
            assert torch.equal(new.layer.bias[rows], old.layer.bias[rows])
            assert torch.equal(new.layer.bias[now.units :], now.layer.bias[rows])
        if now.norm is not None:
            for name in ("weight", "bias", "running_mean", "running_var"):
                vector, before = getattr(new.norm[1], name), getattr(now.norm[1], name)
                assert torch.equal(vector[now.units :], before[rows])
        inputs = rows


def test_a_shared_snapshot_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: as in the official code, writing the old values back overwrites the new ones, too."""
    true = den_phases.split_weight

    def shallow(weight: Tensor, prev: Any, rows: Tensor, *args: Any) -> Tensor:
        current = snapshot = weight.clone()  # one tensor
        if prev is not None:
            snapshot[rows, : prev.shape[1]] = prev[rows]
        return true(current, prev, rows, *args)

    monkeypatch.setattr(den_phases, "split_weight", shallow)
    plugin = Watched(sigma=SIGMA)
    trained(plugin)
    start, drifted, split = plugin.phase("head")[0], plugin.phase("drift")[1], plugin.phase("retrain")[0]
    with pytest.raises(AssertionError, match="copies"):
        check_split(start, drifted, split, SIGMA, noted(plugin, 1, "split"))


def test_a_snapshot_that_follows_the_weights_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: no copy of the weights before the task, no drift, no split."""

    def aliased(stages: Sequence[Any]) -> Before:
        layers = [stage.layer for stage in stages]
        return Before([layer.weight.detach() for layer in layers], [layer.bias.detach() for layer in layers])

    monkeypatch.setattr(Before, "of", staticmethod(aliased))
    plugin = Watched(sigma=SIGMA, expand=False)
    trained(plugin)
    start, drifted = plugin.phase("head")[0], plugin.phase("drift")[1]
    with pytest.raises(AssertionError, match="the split set"):
        check_split(start, drifted, drifted, SIGMA, noted(plugin, 1, "split"))


@optimizers
@pytest.mark.parametrize("network", [deep, normed])
def test_with_sigma_zero_and_restored_units_frozen_older_tasks_are_exact(network: Any, optimizer: str) -> None:
    """Through all phases of two more tasks; without either they are not."""
    known: dict[int, Tensor] = {}

    def look(number: int, model: ExpandableNetwork) -> None:
        for task in range(number):
            answer = answers(model, task)[0]
            if task in known:
                assert torch.equal(known[task], answer)
            known[task] = answer

    plugin = Watched(sigma=0.0, freeze_restored=True)
    model = trained(plugin, network, optimizer, tasks=3, before=look)
    look(3, model)
    assert noted(plugin, 2, "split")[0] > 0
    for changed in ({"sigma": 0.3}, {"freeze_restored": False}, {"split": False}):
        known.clear()
        plugin = Watched(**{"sigma": 0.0, "freeze_restored": True} | changed)
        with pytest.raises(AssertionError):
            look(3, trained(plugin, network, optimizer, tasks=3, before=look))


def test_max_splits_takes_those_that_moved_most() -> None:
    plugin = Watched(sigma=0.01, max_splits=2)
    trained(plugin)
    assert noted(plugin, 1, "split") == [2, 2]
    start, drifted, split = plugin.phase("head")[0], plugin.phase("drift")[1], plugin.phase("retrain")[0]
    for old, now, new in zip(start.stages, drifted.stages, split.stages, strict=True):
        rho = drift(now.layer.weight, now.layer.bias, old.layer.weight, old.layer.bias)
        n, m = old.layer.weight.shape
        restored = (new.layer.weight[:n, :m] == old.layer.weight).all(1)
        assert sorted(rho.topk(2).indices.tolist()) == restored.nonzero().flatten().tolist()


@optimizers
def test_units_add_up_stamps_grow_and_heads_fit(optimizer: str) -> None:
    plugin = Watched(sigma=0.15, gamma=0.05, k=4)
    heads: dict[int, dict[str, Tensor]] = {}

    def look(number: int, model: ExpandableNetwork) -> None:
        for task in range(number):
            now = state(model.heads[task])
            assert task not in heads or common.same(heads[task], now)
            heads[task] = now
            assert (
                not any(parameter.requires_grad for parameter in model.heads[task].parameters()) or task == number - 1
            )

    network = trained(plugin, optimizer=optimizer, tasks=4, before=look)
    look(4, network)
    before = [12, 9]
    for row in range(4):
        added, split, units = (noted(plugin, row, quantity) for quantity in ("added", "split", "units"))
        assert units == [b + a + s for b, a, s in zip(before, added, split, strict=True)]
        before = units
        assert network.scheme.stamps[row].tolist() == before
        assert network.heads[row].weight.shape == (2, before[1])
    assert (network.scheme.stamps.diff(dim=0) >= 0).all()
    assert network.scheme.stamps[-1].sum() > network.scheme.stamps[0].sum()
    assert network.heads.template_weight.shape == (common.CLASSES, before[1])


def test_eq6_pulls_old_weights_to_where_they_were() -> None:
    """The gradient is `2 lambda (W - W^prev)` on the old corner and nothing elsewhere; l2 on all weights."""
    weight, bias = nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(4))
    old, old_bias = torch.randn(3, 2), torch.randn(3)
    weight.grad, bias.grad = torch.zeros(4, 5), torch.zeros(4)
    Rules([weight], 0.1, [weight, bias], [old, old_bias], 0.7).add_gradients()
    copies = weight.detach().clone().requires_grad_(), bias.detach().clone().requires_grad_()
    w, b = copies
    energy = 0.05 * w.square().sum() + 0.7 * ((w[:3, :2] - old) ** 2).sum() + 0.7 * ((b[:3] - old_bias) ** 2).sum()
    energy.backward()
    assert torch.allclose(weight.grad, w.grad)  # type: ignore[arg-type]
    assert torch.allclose(bias.grad, b.grad)  # type: ignore[arg-type]


def test_a_strong_pull_leaves_less_drift() -> None:
    weak, strong = Watched(den_lambda=0.0, drift_share=1.0), Watched(den_lambda=3.0, drift_share=1.0)
    trained(weak)
    trained(strong)
    assert max(noted(strong, 1, "drift")) < 0.7 * max(noted(weak, 1, "drift"))


# ---- the whole ---------------------------------------------------------------------------------------------------


def test_without_stamps_later_units_reach_older_tasks() -> None:
    """The ablation of the paper; its old heads do not read new units, but old units do."""
    hidden, shown = Watched(split=False), Watched(split=False, stamp=False)
    trained(hidden)
    trained(shown)
    for plugin, exact in ((hidden, True), (shown, False)):
        main, expanded = plugin.phase("main")[1], plugin.phase("expand")[1]
        first, later = answers(main, 0), answers(expanded, 0)
        assert all_equal(first, later) == exact
    assert isinstance(shown.phase("main")[1].scheme, Stamped)


def labelled_tasks(labels: Sequence[int], sizes: Sequence[int]) -> Any:
    """A stream with these task labels and numbers of classes."""
    datasets, first = [], 0
    for label, size in zip(labels, sizes, strict=True):
        y = torch.arange(first, first + size).repeat_interleave(8)
        x = torch.randn(len(y), common.FEATURES, generator=torch.Generator().manual_seed(label)) + y[:, None]
        datasets.append(tensor_dataset(ImageTensors(x, y), label))
        first += size
    return TensorScenario({"train": datasets, "test": datasets})


def test_labels_in_any_order_and_heads_of_other_sizes() -> None:
    """The argmax stays in a task's own classes."""
    labels, sizes = (7, 3, 9), (3, 2, 1)
    torch.manual_seed(0)
    model = expandable(deep())
    runner = common.strategy(model, [Watched()])
    for experience in labelled_tasks(labels, sizes).train_stream:
        runner.train(experience)
    assert model.scheme.tasks.tolist() == list(labels)  # type: ignore[operator]
    first = 0
    for label, size in zip(labels, sizes, strict=True):
        assert set(model(X, label).argmax(1).tolist()) <= set(range(first, first + size))
        first += size


def test_a_label_that_comes_twice_is_refused() -> None:
    runner = common.strategy(expandable(deep()), [DENPlugin()])
    first, second, _ = labelled_tasks((4, 4, 5), (2, 2, 2)).train_stream
    runner.train(first)
    with pytest.raises(ValueError, match="4 was the label of experience 1"):
        runner.train(second)


def test_evaluating_every_task_in_every_phase_changes_nothing() -> None:
    """Periodic evaluation of the whole stream within all phases."""
    plain = trained(DENPlugin(tau=-1.0, k=3, sigma=0.1), normed, tasks=3)
    torch.manual_seed(0)
    model, plugin = expandable(normed()), DENPlugin(tau=-1.0, k=3, sigma=0.1)
    runner = common.strategy(
        model, [plugin], optimizer=OPTIMIZERS["momentum and decay"](model), eval_every=1, peval_mode="iteration"
    )
    for number, experience in enumerate(common.benchmark("nc-tasks").train_stream[:3]):
        torch.manual_seed(number)
        runner.train(experience, eval_streams=[common.benchmark("nc-tasks").test_stream])
    assert common.same(state(plain), state(model))


@pytest.mark.parametrize("network", [deep, normed])
def test_saved_between_tasks_and_loaded_it_answers_and_goes_on(network: Any) -> None:
    options: dict[str, Any] = {"tau": -1.0, "k": 3, "sigma": 0.1}
    whole = trained(DENPlugin(**options), network, tasks=3)
    plugin = DENPlugin(**options)
    half = trained(plugin, network, tasks=2)
    torch.manual_seed(99)
    model, again = expandable(network()), DENPlugin(**options)
    model.load_state_dict(half.state_dict())
    assert all_equal(answers(model, 0, 1), answers(half, 0, 1))
    again.load_state_dict(plugin.state_dict())
    runner = common.strategy(model, [again], optimizer=OPTIMIZERS["momentum and decay"](model))
    torch.manual_seed(2)
    runner.train(common.benchmark("nc-tasks").train_stream[2])
    assert common.same(state(whole), state(model))
    assert again.history[:2] == plugin.history


@pytest.mark.parametrize("stamp", [True, False])
def test_a_convolutional_network_through_three_tasks(stamp: bool) -> None:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 3, padding=1),
        nn.ReLU(), nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 6),
    ]  # fmt: skip
    datasets = []
    for task in range(3):
        y = torch.arange(2 * task, 2 * task + 2).repeat_interleave(12)
        x = torch.randn(24, 1, 4, 4, generator=torch.Generator().manual_seed(task)) + (y % 2)[:, None, None, None]
        datasets.append(tensor_dataset(ImageTensors(x, y), task))
    stream = TensorScenario({"train": datasets, "test": datasets}).train_stream
    model, plugin = expandable(nn.Sequential(*layers)), Watched(sigma=0.05, stamp=stamp)
    runner = common.strategy(model, [plugin])
    images = torch.randn(7, 1, 4, 4)
    for experience in stream:
        runner.train(experience)
        if plugin.experiences == 1:
            continue
        main, expanded = plugin.phase("main")[1].eval(), plugin.phase("expand")[1].eval()
        assert torch.equal(main(images, 0), expanded(images, 0)) == stamp
        split = plugin.phase("retrain")[0].eval()
        start = plugin.phase("head")[0]
        for old, new in zip(start.stages, split.stages, strict=True):
            n, m = old.layer.weight.shape[:2]
            same = (new.layer.weight[:n, :m] == old.layer.weight).flatten(1).all(1)
            assert int(same.sum()) >= new.units - n - 3  # those that were split
    assert sum(noted(plugin, 2, "split")) > 0
    assert [stage.units for stage in model.stages] == noted(plugin, 2, "units")


def test_activations_that_map_0_elsewhere_and_other_networks_are_refused() -> None:
    sigmoid = nn.Sequential(nn.Linear(common.FEATURES, 5), nn.Sigmoid(), nn.Linear(5, common.CLASSES))
    with pytest.raises(TypeError, match="is a Sigmoid, which maps 0 to 1/2"):
        trained(DENPlugin(), lambda: sigmoid)
    with pytest.raises(TypeError, match=r"needs an expandable network, which .* given a Sequential"):
        common.run([DENPlugin()], deep, "nc-tasks")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mu": -1.0}, ValueError, r"DENPlugin: mu must be in \[0, inf\), got -1.0"),
        ({"tau": float("nan")}, ValueError, r"tau must be in \(?\[?-inf, inf\), got nan"),
        ({"sigma": "1"}, TypeError, "sigma must be a number, got '1'"),
        ({"k": 0}, ValueError, "k must be an integer >= 1, got 0"),
        ({"iterations": 0}, ValueError, "iterations must be an integer >= 1, got 0"),
        ({"constant": -1}, ValueError, "constant must be an integer >= 0, got -1"),
        ({"split_outgoing": "half"}, ValueError, "split_outgoing must be one of 'replace', 'duplicate', got 'half'"),
        ({"prox_step": 0.0}, ValueError, r"prox_step must be in \(0, inf\), got 0.0"),
        ({"max_splits": 1.5}, TypeError, "max_splits must be an integer, got 1.5"),
        ({"seed": -1}, ValueError, "seed must be an integer >= 0, got -1"),
    ],
)
def test_bad_hyper_parameters(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DENPlugin(**arguments)


def test_the_phases_take_their_shares_of_iterations() -> None:
    counts: dict[str, int] = {}

    class Counting(Watched):
        def _run(self, strategy: Any, *args: Any) -> None:
            before = strategy.clock.train_exp_iterations
            super()._run(strategy, *args)
            counts[self.phases[-1][0]] = strategy.clock.train_exp_iterations - before

    shares = {"head_share": 0.5, "expand_share": 1.0, "drift_share": 0.2, "retrain_share": 0.3}
    trained(Counting(**shares))  # 20 samples, batches of 7, 2 epochs: 6 iterations
    assert counts == {"head": 3, "expand": 6, "drift": 1, "retrain": 2}
    trained(Counting(iterations=20, **shares))
    assert counts == {"head": 10, "expand": 20, "drift": 4, "retrain": 6}
    trained(Counting(drift_share=0.0))
    assert counts["drift"] == 0
