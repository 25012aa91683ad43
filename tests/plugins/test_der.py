"""DER and DER++: the distance in numpy, which logits are stored and compared, how much is computed."""

from typing import Any

from cl_ext.methods.criterion import ScenarioCrossEntropy
from cl_ext.plugins import DERPlugin
from cl_ext.plugins.der import logit_distance, read_logit_distance
from cl_ext.plugins.rehearsal import outputs_read

import numpy as np
import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.methods import helpers
from tests.plugins import common
from tests.plugins.test_gem import EPOCHS, LR, Spy, flat, stream, train

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
NAN = float("nan")
TASKS = [[0, 1], [2, 3], [4, 5], [6, 7]]


def plugin(**changes: Any) -> DERPlugin:
    return DERPlugin(**{"alpha": 0.5, "mem_size": 11, "mem_batch_size": 5, "seed": 3} | changes)


# ---- the distance ----------------------------------------------------------------------------------------------------
def test_the_distance_is_a_mean_over_the_outputs_and_a_squared_norm_is_k_times_it() -> None:
    """The paper writes a squared norm, its code takes the mean: published alphas are for the mean."""
    h, z = torch.randn(6, 4).double(), torch.randn(6, 4).double()
    squared_norm = np.mean(np.sum((h.numpy() - z.numpy()) ** 2, axis=1))
    assert float(logit_distance(h, z)) == pytest.approx(squared_norm / 4, rel=1e-12)
    assert float(read_logit_distance(h, z)) == pytest.approx(squared_norm / 4, rel=1e-12)


def test_units_that_came_later_are_not_compared_and_get_no_gradient() -> None:
    h, z = torch.randn(6, 4).double().requires_grad_(), torch.randn(6, 3).double()
    for distance in (logit_distance, read_logit_distance):
        value = distance(h, z)
        assert float(value) == pytest.approx(np.mean((h.detach().numpy()[:, :3] - z.numpy()) ** 2), rel=1e-12)
        (gradient,) = torch.autograd.grad(value, h)
        torch.testing.assert_close(gradient[:, :3], 2 * (h.detach()[:, :3] - z) / 18)
        assert not gradient[:, 3].any()


def test_logits_that_were_not_read_are_left_out_of_the_mean() -> None:
    h = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)
    z = torch.tensor([[0.0, NAN, NAN], [1.0, 3.0, NAN]])
    value = read_logit_distance(h, z)
    assert float(value) == pytest.approx((1 + 9 + 4) / 3)
    (gradient,) = torch.autograd.grad(value, h)
    torch.testing.assert_close(gradient, torch.tensor([[2.0, 0.0, 0.0], [6.0, 4.0, 0.0]]) / 3)
    assert float(read_logit_distance(h, torch.full((2, 3), NAN))) == 0.0


# ---- which outputs are read ------------------------------------------------------------------------------------------
def test_which_outputs_a_loss_reads() -> None:
    phi = torch.zeros(1, 8)
    assert outputs_read(nn.CrossEntropyLoss(), phi) is None
    assert outputs_read(lambda z, y: nn.functional.nll_loss(z, y), phi) is None  # the network compares them itself
    tasks = outputs_read(ScenarioCrossEntropy(TASKS), phi)
    assert tasks is not None
    assert [row.nonzero().flatten().tolist() for row in tasks] == [task for task in TASKS for _ in task]
    seen = ScenarioCrossEntropy(seen_only=True)
    seen._seen = {0, 1, 5}
    some = outputs_read(seen, phi)
    assert some is not None
    assert [row.nonzero().flatten().tolist() for row in some[[0, 1, 5]]] == [[0, 1, 5]] * 3


# ---- what is stored --------------------------------------------------------------------------------------------------
def test_stored_logits_are_those_of_the_first_sight() -> None:
    """Of the step's own forward pass, before the step, as a hook on the network sees them; no pass of their own."""
    seen: dict[tuple[float, ...], list[Tensor]] = {}
    passes: list[int] = []
    der = plugin(mem_size=200)

    def install(strategy: Any) -> None:
        strategy.model.register_forward_hook(keep)

    def keep(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        passes.append(len(inputs[0]))
        if not replaying:
            for x, z in zip(inputs[0].tolist(), output.detach(), strict=True):
                seen.setdefault(tuple(x), []).append(z.clone())

    replaying: list[bool] = []
    hooks = Spy("before_training", lambda s: None if passes else install(s))
    first = Spy("before_forward", lambda s: replaying.clear())
    second = Spy("after_forward", lambda s: replaying.append(True))
    train([hooks, first, second, der], common.mlp, stream())
    held = der.memory
    assert len(held["x"]) == EPOCHS * 80
    for x, z in zip(held["x"].tolist(), held["logits"], strict=True):
        assert any(torch.equal(z, one) for one in seen[tuple(x)])
    assert torch.equal(torch.cat([torch.stack(each) for each in seen.values()]).sort(0)[0], held["logits"].sort(0)[0])
    steps = EPOCHS * 12
    assert len(passes) == 2 * steps - 1  # one a step for the stream, one for the memory after the first step
    assert not held["logits"].requires_grad


@pytest.mark.parametrize(
    ("weights", "passes"), [((0.0, 0.0), 1), ((0.5, 0.0), 2), ((0.0, 0.5), 2), ((0.5, 0.5), 3)], ids=str
)
def test_a_term_without_weight_is_not_computed(weights: tuple[float, float], passes: int) -> None:
    counts: list[int] = []
    der = plugin(alpha=weights[0], beta=weights[1])
    own = der._memory.sample
    draws: list[Tensor] = []

    def sample(count: int) -> Any:
        drawn = own(count)
        draws.extend([] if drawn is None else [drawn["x"]])
        return drawn

    der._memory.sample = sample  # type: ignore[method-assign]
    hook = Spy(
        "before_training", lambda s: counts or (s.model.register_forward_hook(lambda *_: counts.append(1)) and None)
    )
    train([hook, der], common.mlp, stream())
    steps = EPOCHS * 12
    assert len(counts) == passes * (steps - 1) + 1
    assert len(draws) == (passes - 1) * (steps - 1)
    if passes == 3:  # two draws of a step are independent
        same = sum(torch.equal(a, b) for a, b in zip(draws[::2], draws[1::2], strict=True))
        assert same < 3


def test_one_step_by_hand() -> None:
    """Two batches of three; the second step's loss from weights, logits and labels, with numpy."""
    x, y = torch.randn(6, common.FEATURES).double(), torch.tensor([0, 1, 0, 1, 1, 0])
    dataset = common.labelled(x, y)
    experience = nc_benchmark(dataset, dataset, 1, task_labels=False, shuffle=False).train_stream[0]
    order = torch.stack([x for x, *_ in experience.dataset])
    labels = torch.tensor([int(y) for _, y, *_ in experience.dataset])
    losses: list[float] = []
    weights: list[list[np.ndarray]] = []
    before = Spy("before_forward", lambda s: weights.append([p.detach().numpy().copy() for p in s.model.parameters()]))
    spy = Spy("after_update", lambda s: losses.append(s.loss.item()))
    der = plugin(alpha=0.7, beta=0.3, mem_batch_size=3)
    train([before, der, spy], common.mlp, [experience], train_mb_size=3, train_epochs=1)

    def net(parameters: list[np.ndarray], inputs: Tensor) -> np.ndarray:
        w1, b1, w2, b2 = parameters
        return np.maximum(inputs.numpy() @ w1.T + b1, 0) @ w2.T + b2

    def ce(z: np.ndarray, targets: Tensor) -> float:
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        return float(-np.log(p[np.arange(len(z)), targets.numpy()]).mean())

    z = net(weights[0], order[:3])
    assert losses[0] == pytest.approx(ce(z, labels[:3]), rel=1e-6)
    h = net(weights[1], order[:3])
    distance = ((h - z) ** 2).mean()
    assert losses[1] == pytest.approx(
        ce(net(weights[1], order[3:]), labels[3:]) + 0.7 * distance + 0.3 * ce(h, labels[:3]), rel=1e-6
    )


# ---- reductions ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
def test_without_labels_the_row_of_derpp_is_that_of_der(scenario: str) -> None:
    given = {"alpha": 0.3}
    first = helpers.run("derpp", scenario, given | {"beta": 0.0}).weights
    assert helpers.same(first, helpers.run("der", scenario, given).weights)
    assert not helpers.same(first, helpers.run("derpp", scenario, given | {"beta": 0.5}).weights)


@pytest.mark.parametrize("network", [common.mlp, common.normed, common.Growing])
@pytest.mark.parametrize(
    "off", [{"alpha": 0.0, "beta": 0.0}, {"alpha": 0.0, "beta": 0.0, "mem_size": 0}, {"beta": 0.5, "mem_size": 0}]
)
def test_switched_off_it_is_fine_tuning(network: Any, off: dict[str, Any]) -> None:
    ours = common.weights(common.run([plugin(**off)], network).model)
    assert common.same(ours, common.weights(common.run([], network).model))


# ---- heads and scenarios ---------------------------------------------------------------------------------------------
def test_task_incremental_it_compares_a_tasks_own_outputs() -> None:
    """The shared head with its masked loss equals a head a task: the mean is over the task's classes."""
    der, steps = plugin(mem_size=200, mem_batch_size=400), []

    def keep(strategy: Any) -> None:
        steps.append(
            (strategy.loss.item(), [part.clone() for part in strategy.mbatch], flat(strategy.model.parameters()))
        )

    before: list[Tensor] = []
    spies = Spy("before_forward", lambda s: before.append(flat(s.model.parameters()))), Spy("after_backward", keep)
    train([der, *spies], common.mlp, stream(task_labels=True), criterion=ScenarioCrossEntropy(TASKS), train_epochs=1)
    assert [row.isnan().logical_not().nonzero().flatten().tolist() for row in der.memory["logits"]] == [
        TASKS[int(t)] for t in der.memory["t"]
    ]
    model = common.mlp().double()
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    for theta, (loss, (x, y, _), _) in zip(before, steps, strict=True):
        torch.nn.utils.vector_to_parameters(theta, model.parameters())
        with torch.no_grad():
            expected = _task_loss(model(x), y)
            terms = [(_own(model(xs), ys) - zs).square() for xs, ys, zs in seen]
            expected += 0.5 * float(torch.cat(terms).mean()) if terms else 0.0
            assert loss == pytest.approx(expected, rel=1e-6)
            seen.append((x, y, _own(model(x), y)))


def _own(z: Tensor, y: Tensor) -> Tensor:
    """The two columns of each sample's own task, (B, 2)."""
    return z.gather(1, (y // 2 * 2)[:, None] + torch.arange(2))


def _task_loss(z: Tensor, y: Tensor) -> float:
    return float(cross_entropy(_own(z, y), y % 2))


def _descending() -> Any:
    """The stream of four experiences whose classes come from the last to the first."""
    train_set, test_set = common.blobs(10, 1), common.blobs(4, 2)
    order = list(reversed(range(common.CLASSES)))
    return nc_benchmark(
        train_set, test_set, common.EXPERIENCES, task_labels=False, fixed_class_order=order
    ).train_stream


def _largest_term(der: DERPlugin, experiences: Any) -> float:
    losses: list[float] = []
    before = Spy("after_forward", lambda s: losses.append(-float(cross_entropy(s.mb_output, s.mb_y))))
    after = Spy("after_backward", lambda s: losses.append(losses.pop() + s.loss.item()))
    torch.manual_seed(0)
    model = common.Growing()
    runner = common.strategy(model, [before, der, after], optimizer=torch.optim.SGD(model.parameters(), LR))
    for experience in experiences:
        runner.train(experience)
    return max(losses)


def test_masked_units_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Avalanche's growing head writes -1000 into units that no class has yet; later they are ordinary units.

    Negative control: compared, they are a squared distance of about a million.
    """
    der = plugin()
    assert _largest_term(der, _descending()) < 10.0
    first = der.memory["logits"][der.memory["y"] >= 6]
    if len(first):
        assert bool(first[:, :6].isnan().all())
    monkeypatch.setattr("cl_ext.plugins.der._UNREAD", -1000.0)
    assert _largest_term(plugin(), _descending()) > 1e4


def test_a_growing_head_compares_the_units_of_the_time() -> None:
    der = plugin(mem_size=40)
    runner = common.run([der], common.Growing)
    assert runner.model.head.classifier.out_features == common.CLASSES
    logits, labels = der.memory["logits"], der.memory["y"]
    assert logits.shape == (40, common.CLASSES)
    for z, y in zip(logits, labels.tolist(), strict=True):
        units = y // 2 * 2 + 2
        assert bool(torch.isfinite(z[:units]).all())
        assert bool(z[units:].isnan().all())


@pytest.mark.parametrize("network", [common.mlp, common.Growing, common.MultiHead])
def test_resumed_with_any_head_it_goes_on_bit_equal(network: Any) -> None:
    kind = "nc-tasks" if network is common.MultiHead else "nc"
    whole = common.weights(common.run([plugin(beta=0.4)], network, kind).model)
    torch.manual_seed(0)
    experiences, first = common.benchmark(kind).train_stream, plugin(beta=0.4)
    runner = common.strategy(network(), [first])
    common.train(runner, experiences[:2])
    second = plugin(beta=0.4, seed=99)
    second.load_state_dict(first.state_dict())
    runner.plugins[0] = second
    common.train(runner, experiences, first=2)
    assert common.same(whole, common.weights(runner.model))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"alpha": -1.0}, ValueError, r"DERPlugin: alpha must be in \[0, inf\), got -1.0"),
        ({"beta": NAN}, ValueError, r"DERPlugin: beta must be in \[0, inf\), got nan"),
        ({"beta": "1"}, TypeError, "beta must be a number, got '1'"),
        ({"mem_size": -1}, ValueError, "DERPlugin: mem_size must be an integer >= 0, got -1"),
        ({"mem_batch_size": 0}, ValueError, "mem_batch_size must be an integer >= 1, got 0"),
        ({"policy": "fifo"}, ValueError, "policy must be one of 'reservoir', 'ring', 'class_balanced', got 'fifo'"),
        ({"seed": -1}, ValueError, "seed must be an integer >= 0, got -1"),
    ],
)
def test_bad_hyper_parameters(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DERPlugin(**arguments)
