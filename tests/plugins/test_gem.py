"""GEM against a second derivation with plain loops and another solver, step by step, in float64."""

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from cl_ext.methods.criterion import ScenarioCrossEntropy
from cl_ext.models.expansion import expandable
from cl_ext.plugins import AGEMPlugin, DENPlugin, GEMPlugin

import numpy as np
import pytest
import quadprog
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.core import SupervisedPlugin
from avalanche.models.utils import avalanche_forward
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
LR, BATCH, EPOCHS, MEMORY = 0.1, 7, 2, 9
Pair = tuple[Tensor, Tensor]
Project = Callable[[Tensor, Tensor], Tensor]


def stream(task_labels: bool = False, dtype: torch.dtype = torch.float64) -> Any:
    """Four experiences of two classes, 20 samples each, the classes mixed."""
    x, y = common.blobs(10, 1).tensors  # type: ignore[attr-defined]
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    dataset = common.labelled(x[order].to(dtype), y[order])
    return nc_benchmark(dataset, dataset, common.EXPERIENCES, task_labels=task_labels, shuffle=False).train_stream


class Spy(SupervisedPlugin):
    """Calls a function after each backward pass or update."""

    def __init__(self, event: str, call: Callable[[Any], None]) -> None:
        super().__init__()
        setattr(self, event, lambda strategy, *args, **kwargs: call(strategy))


def train(plugins: list[Any], network: Callable[[], nn.Module], experiences: Any, **options: Any) -> Any:
    """Trains with plain SGD, without shuffling, and returns the strategy."""
    torch.manual_seed(0)
    model = network().to(experiences[0].dataset[0][0].dtype)
    arguments = {"train_mb_size": BATCH, "train_epochs": EPOCHS, "optimizer": torch.optim.SGD(model.parameters(), LR)}
    runner = common.strategy(model, plugins, **(arguments | options))
    for experience in experiences:
        runner.train(experience, shuffle=False)
    return runner


def trajectory(plugin: Any, network: Callable[[], nn.Module]) -> list[Tensor]:
    """Returns the weights after every step, each (P,)."""
    steps: list[Tensor] = []
    seeded = Spy("before_forward", lambda _: torch.manual_seed(len(steps)) and None)  # of dropout
    train([seeded, plugin, Spy("after_update", lambda s: steps.append(flat(s.model.parameters())))], network, stream())
    return steps


def flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def split(vector: Tensor, model: nn.Module) -> tuple[Tensor, ...]:
    return vector.split([p.numel() for p in model.parameters()])


def gradient(model: nn.Module, x: Tensor, y: Tensor, training: bool) -> Tensor:
    """Returns the gradient of the mean cross-entropy, (P,); afterwards the network is in train mode."""
    model.train(training)
    model.zero_grad()
    cross_entropy(model(x), y).backward()
    model.train()
    return flat(p.grad for p in model.parameters())


def derive(
    network: Callable[[], nn.Module], project: Project, size: int, union: bool = False, fault: str = ""
) -> list[Tensor]:
    """The algorithm by hand: a list of the last samples of an experience, a loop over tasks, SGD written out.

    Args:
        network: makes the network.
        project: from g (P,) and G (t, P) to g~.
        size: of each memory.
        union: one reference on all memories together, as in A-GEM, or one for each.
        fault: a known fault to bring in.
    """
    torch.manual_seed(0)
    model = network().double()
    memories: list[Pair] = []
    steps: list[Tensor] = []
    for experience in stream():
        x = torch.stack([sample[0] for sample in experience.dataset])
        y = torch.tensor([int(sample[1]) for sample in experience.dataset])
        last: list[int] = []
        for epoch in range(EPOCHS):
            for start in range(0, len(x), BATCH):
                rows = list(range(start, min(start + BATCH, len(x))))
                if epoch == 0:
                    last = rows if fault == "one batch a task" else (last + rows)[-size:]
                torch.manual_seed(len(steps))
                g = gradient(model, x[rows], y[rows], training=True)
                old = memories + ([(x[last], y[last])] if fault == "current task too" else [])
                if union and old:
                    old = [(torch.cat([m[0] for m in old]), torch.cat([m[1] for m in old]))]
                if old:
                    training = fault == "reference with dropout"
                    G = torch.stack([gradient(model, *memory, training=training) for memory in old])
                    if fault == "always" or bool((G @ g < 0).any()):
                        g = project(g, G)
                for p, part in zip(model.parameters(), split(g, model), strict=True):
                    p.data -= LR * part.view_as(p)
                steps.append(flat(model.parameters()))
        memories.append((x[last], y[last]))
    return steps


def far(a: list[Tensor], b: list[Tensor]) -> float:
    """Returns the largest distance of two trajectories, relative to the weights."""
    assert len(a) == len(b)
    return max(float((p - q).norm() / q.norm()) for p, q in zip(a, b, strict=True))


def qp(g: Tensor, G: Tensor, margin: float = 0.5) -> Tensor:
    """The authors' dual by quadprog."""
    t, kind = len(G), g.dtype
    g, G = g.double(), G.double()
    v = quadprog.solve_qp((G @ G.T).numpy() + 1e-3 * np.eye(t), -(G @ g).numpy(), np.eye(t), np.full(t, margin))[0]
    return (g + G.T @ torch.from_numpy(v)).to(kind)


def _margin_on_the_dot_products(g: Tensor, G: Tensor) -> Tensor:
    """`G g~ >= gamma`, by its own dual."""
    t = len(G)
    v = quadprog.solve_qp((G @ G.T).numpy() + 1e-3 * np.eye(t), (0.5 - G @ g).numpy(), np.eye(t), np.zeros(t))[0]
    return g + G.T @ torch.from_numpy(v)


@pytest.mark.parametrize("network", [common.mlp, common.normed])
@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_it_equals_the_second_derivation_step_by_step(network: Any, margin: float) -> None:
    """The network with batch norm and dropout draws the same noise: memory passes draw none."""
    ours = trajectory(GEMPlugin(MEMORY, margin), network)
    assert far(ours, derive(network, lambda g, G: qp(g, G, margin), MEMORY)) < 1e-9


@pytest.mark.parametrize(
    ("network", "project", "fault"),
    [
        (common.mlp, _margin_on_the_dot_products, ""),
        (common.mlp, qp, "current task too"),
        (common.mlp, qp, "one batch a task"),
        (common.mlp, qp, "always"),
        (common.normed, qp, "reference with dropout"),
    ],
)
def test_negative_control(network: Any, project: Project, fault: str) -> None:
    """Each known fault is far outside what the derivation lets pass."""
    assert far(trajectory(GEMPlugin(MEMORY), network), derive(network, project, MEMORY, fault=fault)) > 1e-2


class Checked:
    """Redoes every projection from the definition, in a copy of the network, with the plugin's own memory."""

    def __init__(self, plugin: Any, project: Project) -> None:
        self.plugin, self.project = plugin, project
        self.projected: list[bool] = []
        self.violated: list[float] = []
        self.ratios: list[float] = []
        self.new_gradients = 0
        self._before: list[Tensor | None] = []
        self._references: list[Any] = []
        own = plugin.references

        def references() -> Any:
            self._references = own()
            return self._references

        plugin.references = references

    def plugins(self) -> list[Any]:
        return [Spy("after_backward", self._remember), self.plugin, Spy("after_backward", self._check)]

    def _remember(self, strategy: Any) -> None:
        self._before = [None if p.grad is None else p.grad.clone() for p in strategy.model.parameters()]

    def _check(self, strategy: Any) -> None:
        parameters = list(strategy.model.parameters())
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, self._before, strict=True)]
        expected = g = flat(filled)
        if self._references:
            model = copy.deepcopy(strategy.model).eval()
            rows = []
            for x, y, t in self._references:
                model.zero_grad()
                strategy._criterion(avalanche_forward(model, x, t), y).backward()
                rows.append(flat(torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()))
            G = torch.stack(rows)
            violated = float((G @ g < 0).double().mean())
            self.projected.append(violated > 0)
            self.violated.append(violated)
            if violated:
                expected = self.project(g, G)
            self.ratios.append(float(expected.norm() / g.norm()))
        close = {"rtol": 1e-8, "atol": 1e-9} if g.dtype == torch.float64 else {"rtol": 1e-3, "atol": 1e-5}
        for p, before, part in zip(parameters, self._before, split(expected, strategy.model), strict=True):
            if before is None and not part.any():
                assert p.grad is None
                continue
            assert p.grad is not None
            self.new_gradients += before is None
            torch.testing.assert_close(p.grad.flatten(), part, **close)
            if expected is g and before is not None:
                assert torch.equal(p.grad, before)  # bit for bit


CHECKS = pytest.mark.parametrize(
    ("network", "task_labels", "dtype"),
    [
        (common.mlp, False, torch.float64),
        (common.normed, False, torch.float64),
        (common.Growing, False, torch.float32),  # Avalanche's heads make float32 layers
        (common.MultiHead, True, torch.float32),
    ],
)


@CHECKS
def test_every_kind_of_head(network: Any, task_labels: bool, dtype: torch.dtype) -> None:
    checked = Checked(GEMPlugin(MEMORY), qp)
    train(checked.plugins(), network, stream(task_labels, dtype))
    assert any(checked.projected)
    if network is common.MultiHead:
        assert checked.new_gradients > 0  # heads of old tasks, which the batch does not use


def test_the_loss_of_a_memory_is_that_of_its_task() -> None:
    """Task-incremental: the gradients on a task's memory have no part in other tasks' outputs."""
    checked = Checked(GEMPlugin(MEMORY), qp)
    criterion = ScenarioCrossEntropy([[0, 1], [2, 3], [4, 5], [6, 7]])
    model = train(checked.plugins(), common.mlp, stream(True), criterion=criterion).model
    assert any(checked.projected)
    assert any(not projected for projected in checked.projected)
    x, y, t = checked.plugin.memory[1]
    assert t.unique().tolist() == [1]
    model.zero_grad()
    criterion(model(x), y).backward()
    assert model[2].bias.grad[[0, 1, 4, 5, 6, 7]].abs().max() == 0
    assert model[2].bias.grad[[2, 3]].abs().max() > 0


@pytest.mark.parametrize("make", [lambda: GEMPlugin(MEMORY), lambda: AGEMPlugin(MEMORY, 8)])
def test_metrics_say_what_was_done(make: Any) -> None:
    plugin = make()
    project = qp if isinstance(plugin, GEMPlugin) else lambda g, G: g - (G[0] @ g) / (G[0] @ G[0]) * G[0]
    checked = Checked(plugin, project)
    runner = train(checked.plugins(), common.mlp, stream())
    metrics, steps = runner.evaluator.get_all_metrics(), 3  # of an epoch
    done = {"Projected": checked.projected, "Violations": checked.violated, "NormRatio": checked.ratios}
    for name, values in done.items():
        assert f"{plugin.name}_{name}/train_phase/train_stream/Exp000" not in metrics  # no constraint yet
        found = [v for e in (1, 2, 3) for v in metrics[f"{plugin.name}_{name}/train_phase/train_stream/Exp{e:03d}"][1]]
        expected = torch.tensor(values, dtype=torch.float64).view(-1, steps).mean(1)
        assert found == pytest.approx(expected.tolist(), rel=1e-6)


@pytest.mark.parametrize(
    ("make", "passes"), [(lambda: GEMPlugin(4), [0, 1, 2, 3]), (lambda: AGEMPlugin(4), [0, 1, 1, 1])]
)
def test_a_pass_a_constraint_and_no_more(make: Any, passes: list[int]) -> None:
    calls: list[int] = []
    model = common.mlp()
    model[0].register_forward_hook(lambda *_: calls.append(1) and None)
    runner = common.strategy(model, [make()], train_mb_size=10, train_epochs=1)
    for experience, extra in zip(common.benchmark().train_stream, passes, strict=True):
        calls.clear()
        runner.train(experience)
        assert len(calls) == 2 * (1 + extra)


@pytest.mark.parametrize("make", [lambda: GEMPlugin(MEMORY), lambda: AGEMPlugin(MEMORY, 4)])
def test_memory_passes_leave_no_trace(make: Any) -> None:
    """No number is drawn from the global generator, and batch norm sees the training batches only."""
    runner = common.run([make()], common.normed)
    state = torch.get_rng_state()
    common.run([], common.normed)
    assert torch.equal(state, torch.get_rng_state())
    assert int(runner.model[1].num_batches_tracked) == common.EXPERIENCES * EPOCHS * 3


@pytest.mark.parametrize("make", [lambda: GEMPlugin(MEMORY), lambda: AGEMPlugin(MEMORY)])
def test_each_experience_has_its_memory(make: Any) -> None:
    """So many samples of its own, none twice, whatever the epochs; and the bytes are counted."""
    plugin = make()
    train([plugin], common.mlp, stream(True), train_epochs=3)
    assert [len(y) for _, y, _ in plugin.memory] == [MEMORY] * common.EXPERIENCES
    for number, (x, y, t) in enumerate(plugin.memory):
        assert set(y.tolist()) <= {2 * number, 2 * number + 1}
        assert t.tolist() == [number] * MEMORY
        assert len(x.unique(dim=0)) == MEMORY
    held = common.EXPERIENCES * MEMORY * (common.FEATURES * 8 + 8 + 8)
    rows = 4 if isinstance(plugin, GEMPlugin) else 2
    assert plugin.extra_bytes() == held + rows * 8 * sum(p.numel() for p in common.mlp().parameters())


def test_the_ring_is_the_last_of_the_first_epoch() -> None:
    plugin = GEMPlugin(MEMORY)
    experiences = stream()
    train([plugin], common.mlp, experiences, train_epochs=3)
    for experience, (x, _, _) in zip(experiences, plugin.memory, strict=True):
        last = torch.stack([sample[0] for sample in experience.dataset])[-MEMORY:]
        assert torch.equal(torch.unique(x, dim=0), torch.unique(last, dim=0))


@pytest.mark.parametrize("make", [lambda: GEMPlugin(MEMORY), lambda: AGEMPlugin(MEMORY)])
def test_a_batch_without_task_labels_is_of_task_0(make: Any) -> None:
    plugin, x, y = make(), torch.rand(2, common.FEATURES), torch.tensor([0, 1])
    plugin.before_training_iteration(SimpleNamespace(mbatch=[x, y], clock=SimpleNamespace(train_exp_epochs=0)))
    plugin.after_training_exp(SimpleNamespace())
    ((held, labels, tasks),) = plugin.memory
    assert torch.equal(held, x)
    assert torch.equal(labels, y)
    assert tasks.tolist() == [0, 0]


@pytest.mark.parametrize("make", [lambda: GEMPlugin(30), lambda: AGEMPlugin(30, 8)])
def test_an_experience_that_was_broken_off_leaves_nothing(make: Any) -> None:
    def stop(strategy: Any) -> None:
        raise KeyboardInterrupt

    plugin, experiences = make(), stream()
    with pytest.raises(KeyboardInterrupt):
        train([plugin, Spy("after_training_epoch", stop)], common.mlp, experiences[:1])
    assert plugin.memory == []
    train([plugin], common.mlp, experiences[1:2])
    assert [len(y) for _, y, _ in plugin.memory] == [20]
    assert set(plugin.memory[0][1].tolist()) <= {2, 3}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mem_size": -1}, ValueError, "GEMPlugin: mem_size must be an integer >= 0, got -1"),
        ({"mem_size": 2.5}, TypeError, "mem_size must be an integer, got 2.5"),
        ({"margin": -0.1}, ValueError, r"GEMPlugin: margin must be in \[0, inf\), got -0.1"),
        ({"margin": "1"}, TypeError, "margin must be a number, got '1'"),
        ({"regularisation": float("nan")}, ValueError, r"regularisation must be in \[0, inf\), got nan"),
    ],
)
def test_bad_hyper_parameters(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        GEMPlugin(**arguments)


# ---- networks that change inside an experience -----------------------------------------------------------------------
def with_heads() -> nn.Module:
    return expandable(nn.Sequential(nn.Linear(common.FEATURES, 16), nn.ReLU(), nn.Linear(16, common.CLASSES)))


@pytest.mark.parametrize("make", [lambda: GEMPlugin(MEMORY), lambda: AGEMPlugin(MEMORY, 4)])
def test_a_loss_in_which_no_weight_in_training_has_a_part_is_no_constraint(make: Any) -> None:
    """From the second experience on only its own head learns: the old ones' losses stay as they are."""

    def freeze(strategy: Any) -> None:
        strategy.model.features.requires_grad_(strategy.clock.train_exp_counter == 0)
        for task in strategy.model.heads.tasks[:-1]:
            strategy.model.heads[task].requires_grad_(False)

    ends = [
        common.weights(train([Spy("before_training_epoch", freeze), *more], with_heads, stream(True)).model)
        for more in ([], [make()])
    ]
    assert common.same(*ends)


@pytest.mark.parametrize("make", [lambda: GEMPlugin(MEMORY, 0.0), lambda: AGEMPlugin(MEMORY, 10**6)])
def test_beside_a_method_that_grows_the_network_every_weight_of_the_moment_is_projected(make: Any) -> None:
    plugin, sizes, changed = make(), [], []

    def look(strategy: Any) -> None:
        parameters = [p for p in strategy.model.parameters() if p.requires_grad]
        sizes.append(sum(p.numel() for p in parameters))
        step = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
        for x, y, t in plugin.references():
            loss = cross_entropy(avalanche_forward(strategy.model, x, t), y)
            if loss.requires_grad:
                parts = torch.autograd.grad(loss, parameters, allow_unused=True)
                parts = [
                    torch.zeros_like(p) if part is None else part for p, part in zip(parameters, parts, strict=True)
                ]
                old = torch.cat([part.flatten() for part in parts])
                assert float(step @ old) >= -1e-4 * (1 + float(step.norm() * old.norm()))  # GEM's epsilon
        changed.append(plugin._projected)

    den = DENPlugin(tau=-1.0, k=3, iterations=4)
    train([den, plugin, Spy("after_backward", look)], with_heads, stream(True, torch.float32)[:3])
    assert max(changed) > 0
    assert len(set(sizes)) > 3
