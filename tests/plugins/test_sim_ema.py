"""SIM-EMA against its reductions to ER, Mean-ER and CLS-ER, a loop over samples, and streams with known groups."""

import copy
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

from cl_ext.methods.criterion import ScenarioCrossEntropy
from cl_ext.models import NetworkSpec, build_network
from cl_ext.nn.averaging import AveragedNetwork
from cl_ext.nn.divergence import DivergedError
from cl_ext.nn.passes import evaluation_mode
from cl_ext.plugins import CLSERPlugin, ERPlugin, SimEMAPlugin
from cl_ext.plugins.sim_ema import teacher_weight, update_rate, weighted_consistency
from cl_ext.streams import build_stream
from cl_ext.streams.scenario import TensorScenario
from cl_ext.streams.spec import StreamSpec
from cl_ext.streams.tensors import ImageTensors, as_tensors, tensor_dataset

import pytest
import torch
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor

from tests.plugins import common
from tests.plugins.test_clser import ALL_NETWORKS, Spy, own

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
VALUES: dict[str, Any] = {
    "sim_ema_lambda": 2.0, "mem_size": 12, "mem_batch_size": 8, "alpha": 0.9, "stable_alpha": 0.97,
    "stable_rate": 0.6, "seed": 3,
}  # fmt: skip
EVERY_MODEL = ("stable", "working", "mean_weights", "max_softmax", "ensemble")


def make(**changes: Any) -> SimEMAPlugin:
    return SimEMAPlugin(**(VALUES | changes))


def by_parity(task: int, members: Sequence[int]) -> float:
    """Even tasks are similar to even ones, odd to odd."""
    return 0.75 if task % 2 == members[0] % 2 else 0.25


def averages(plugin: SimEMAPlugin) -> list[dict[str, Tensor]]:
    return [own(plugin.stable), *(own(group.average) for group in plugin.groups)]


def same_run(a: tuple[Any, SimEMAPlugin], b: tuple[Any, SimEMAPlugin]) -> bool:
    pairs = zip(averages(a[1]), averages(b[1]), strict=True)
    working = common.same(common.weights(a[0].model), common.weights(b[0].model))
    return working and all(common.same(one, two) for one, two in pairs)


# ---- the loss --------------------------------------------------------------------------------------------------------
def test_weights_of_teachers_and_rates_of_updates() -> None:
    for s in (0.0, 0.3, 1.0):
        assert [teacher_weight(s, phi) for phi in ("prop", "const", "inverse")] == [s, 1.0, 1.0 - s]  # type: ignore[arg-type]
        assert update_rate(s, 0.1, 0.9) == pytest.approx(0.1 + 0.8 * s)


def test_the_weighted_consistency_by_hand() -> None:
    z, Z = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 7.0]])
    w = torch.tensor([1.0, 0.5])
    assert weighted_consistency(z, Z, w).item() == pytest.approx((4 + 9 + 0.5 * 36) / 6)
    read = torch.tensor([[True, True, False], [False, True, True]])
    assert weighted_consistency(z, Z, w, read).item() == pytest.approx((4 + 0.5 * 36) / 4)


@pytest.mark.parametrize("phi", ["prop", "const", "inverse"])
@pytest.mark.parametrize("teacher", ["group", "best"])
@pytest.mark.parametrize("tasks", [False, True])
def test_every_steps_loss_by_a_loop_over_samples_in_float64(phi: Any, teacher: Any, tasks: bool) -> None:
    """Each replayed sample is taught by the group that the task of its label is in, and by no other."""
    plugin = make(similarity=by_parity, phi=phi, teacher=teacher, rate_min=0.2)
    read = torch.ones(common.CLASSES, common.CLASSES, dtype=torch.bool)
    if tasks:
        of = torch.arange(common.CLASSES) // 2
        read = of.unsqueeze(0) == of.unsqueeze(1)
    expected, found, used = [], [], set()

    def probe(average: AveragedNetwork, x: Tensor) -> Tensor:
        return copy.deepcopy(average.network).double()(x.double().unsqueeze(0))[0]  # type: ignore[misc]

    @torch.no_grad()
    def compute(strategy: Any) -> None:
        x, y = strategy.mbatch[:2]
        start, W = len(plugin._stream[1]), copy.deepcopy(strategy.model).double()
        ce, term, count = 0.0, 0.0, 0
        for n in range(len(y)):
            z, mask = W(x[n].double().unsqueeze(0))[0], read[y[n]]
            ce += float(z[mask].logsumexp(0) - z[y[n]])
            if n < start:
                continue
            task = int(y[n]) // 2
            group = next(g for g in plugin.groups if task in g.members)
            used.add(group.id)
            Z = probe(group.average, x[n])
            if teacher == "best":
                S = probe(plugin.stable, x[n])
                p, q = (float((each[y[n]] - each[mask].logsumexp(0)).exp()) for each in (S, Z))
                Z = S if p > q else Z
            s = by_parity(plugin.experiences, group.members)
            term += teacher_weight(s, phi) * float((z - Z)[mask].square().sum())
            count += int(mask.sum())
        expected.append(ce / len(y) + VALUES["sim_ema_lambda"] * term / max(1, count))

    loss = ScenarioCrossEntropy([[2 * t, 2 * t + 1] for t in range(4)]) if tasks else torch.nn.CrossEntropyLoss()
    spies = [Spy("before_backward", compute), Spy("after_backward", lambda s: found.append(s.loss.item()))]
    common.run([plugin, *spies], criterion=loss, train_epochs=1)
    assert used == {0, 1}
    assert len(found) == 4 * 3
    assert found == pytest.approx(expected, rel=2e-5, abs=1e-6)
    assert all(p.grad is None for group in plugin.groups for p in group.average.network.parameters())  # type: ignore[union-attr]


# ---- reductions ------------------------------------------------------------------------------------------------------
@ALL_NETWORKS
def test_without_consistency_the_working_network_is_that_of_er_bit_for_bit(network: Any, kind: str) -> None:
    er = common.run([ERPlugin(12, 8, seed=3)], network, kind)
    state = torch.get_rng_state()
    ours = common.run([make(sim_ema_lambda=0.0)], network, kind)
    assert torch.equal(state, torch.get_rng_state())
    assert common.same(common.weights(er.model), common.weights(ours.model))
    barely = common.run([make(sim_ema_lambda=1e-3, phi="const")], network, kind)
    assert not common.same(common.weights(er.model), common.weights(barely.model))


@ALL_NETWORKS
def test_with_no_similarity_at_all_it_is_er_and_the_averages_never_move(network: Any, kind: str) -> None:
    """s = 0, r_min = 0: no teacher has weight and no average an update; with "const" teachers have."""
    er = common.run([ERPlugin(12, 8, seed=3)], network, kind)
    plugin = make(similarity=lambda task, members: 0.0, rate_min=0.0)
    ours = common.run([plugin], network, kind)
    assert common.same(common.weights(er.model), common.weights(ours.model))
    assert [group.average.updates for group in plugin.groups] == [0] * common.EXPERIENCES
    other = common.run([make(similarity=lambda task, members: 0.0, phi="const")], network, kind)
    assert not common.same(common.weights(er.model), common.weights(other.model))


@ALL_NETWORKS
@pytest.mark.parametrize("bn", ["ema", "copy"])
def test_with_full_similarity_one_group_is_mean_er(network: Any, kind: str, bn: Any) -> None:
    """s = 1, r = 1: CLS-ER with alpha_P = alpha_S and r_P = r_S = 1, bit for bit: its working network and averages."""
    mean = CLSERPlugin(2.0, 12, 8, 0.95, 0.95, 1.0, 1.0, bn=bn, seed=3)
    theirs = common.run([mean], network, kind)
    for similarity in ("constant", lambda task, members: 1.0):
        plugin = make(similarity=similarity, alpha=0.95, stable_alpha=0.95, stable_rate=1.0, bn=bn)
        ours = common.run([plugin], network, kind)
        assert common.same(common.weights(theirs.model), common.weights(ours.model))
        assert [group.members for group in plugin.groups] == [[0, 1, 2, 3]]
        assert all(common.same(own(mean.plastic), average) for average in averages(plugin))
    other = common.run([make(similarity="constant", alpha=0.9, bn=bn)], network, kind)
    assert not common.same(common.weights(theirs.model), common.weights(other.model))


@ALL_NETWORKS
@pytest.mark.parametrize("bn", ["ema", "copy"])
def test_two_constant_rates_and_the_better_teacher_are_clser(network: Any, kind: str, bn: Any) -> None:
    """The one group is P and the average of all tasks S, coin for coin: bit-equal working network and averages."""
    clser = CLSERPlugin(2.0, 12, 8, 0.9, 0.97, 0.9, 0.6, bn=bn, seed=3)
    theirs = common.run([clser], network, kind)
    plugin = make(similarity="constant", teacher="best", rate_max=0.9, bn=bn)
    ours = common.run([plugin], network, kind)
    assert common.same(common.weights(theirs.model), common.weights(ours.model))
    assert common.same(own(clser.plastic), own(plugin.groups[0].average))
    assert common.same(own(clser.stable), own(plugin.stable))
    assert 0 < clser.plastic.updates == plugin.groups[0].average.updates < clser.plastic.steps
    alone = common.run([make(similarity="constant", teacher="group", rate_max=0.9, bn=bn)], network, kind)
    assert not common.same(common.weights(theirs.model), common.weights(alone.model))


# ---- groups in training ----------------------------------------------------------------------------------------------
def resumed(
    plugin: SimEMAPlugin, first: Any, change: Callable[[dict[str, Any]], Any] = lambda state: None, **options: Any
) -> tuple[Any, SimEMAPlugin]:
    """Goes on with the last two experiences in a new plugin of the saved, changed state; returns runner and plugin."""
    file = io.BytesIO()
    torch.save([first.model.state_dict(), first.optimizer.state_dict(), plugin.state_dict()], file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    change(state[2])
    new = make(**options)
    model = copy.deepcopy(first.model)
    runner = common.strategy(model, [new])
    runner.make_optimizer(reset_optimizer_state=True)
    model.load_state_dict(state[0])
    runner.optimizer.load_state_dict(state[1])
    new.load_state_dict(state[2])
    return runner, new


def half(network: Any = common.mlp, kind: str = "nc", **options: Any) -> tuple[Any, SimEMAPlugin]:
    """A run of the first two experiences."""
    torch.manual_seed(0)
    plugin = make(**options)
    runner = common.strategy(network(), [plugin])
    common.train(runner, common.benchmark(kind).train_stream[:2])
    return runner, plugin


NAMES = {0: 7, 1: 0}


def swap_memory(state: dict[str, Any]) -> None:
    """A fault that the test has to see: samples of one group carry the other's id."""
    state["memory"]["fields"]["group"] = 1 - state["memory"]["fields"]["group"]


def rename_all(state: dict[str, Any]) -> None:
    for each in state["groups"]:
        each["id"] = NAMES[each["id"]]
        each["compared"] = [[NAMES[other], total, count] for other, total, count in each["compared"]]
    state["groups"].reverse()
    ids = state["memory"]["fields"]["group"]
    state["memory"]["fields"]["group"] = torch.tensor([NAMES[int(each)] for each in ids])


@pytest.mark.parametrize("options", [{}, {"phi": "inverse", "rate_min": 0.3}, {"max_groups": 2, "tau_join": 0.9}])
def test_the_groups_ids_and_their_order_change_nothing(options: dict[str, Any]) -> None:
    options = {"similarity": by_parity} | options
    stream = common.benchmark().train_stream
    runs = []
    for change in (lambda state: None, rename_all, swap_memory):
        first, plugin = half(**options)
        runs.append(resumed(plugin, first, change, **options))
        common.train(runs[-1][0], stream, first=2)
    wrong = runs.pop()
    merged = "max_groups" in options  # all that is in memory is then of one group
    assert common.same(common.weights(runs[0][0].model), common.weights(wrong[0].model)) == merged
    assert {group.id for group in runs[1][1].groups} != {group.id for group in runs[0][1].groups}
    assert [group.members for group in runs[0][1].groups] == [group.members for group in runs[1][1].groups]
    assert same_run(*runs)


def test_memory_samples_carry_the_group_of_their_task_through_merges() -> None:
    """The label says the task. Nothing is similar, so with two groups at most every later task makes a merge."""
    plugin = make(similarity=lambda task, members: 0.1, max_groups=2, mem_size=30)
    held: list[int] = []

    def look(strategy: Any) -> None:
        held.append(len(plugin.groups))
        for y, group in zip(plugin.memory.get("y", []), plugin.memory.get("group", []), strict=True):
            owner = plugin.groups.of_task(int(y) // 2)
            assert owner is not None
            assert owner.id == int(group)

    common.run([plugin, Spy("after_training_exp", look), Spy("before_training_epoch", look)])
    assert max(held) == 2
    assert [group.members for group in plugin.groups] == [[0, 1, 2], [3]]


def test_a_groups_rate_follows_the_similarity_and_its_average_has_the_closed_form_weights() -> None:
    """theta_g = sum of (1 - a_i) prod_{j > i} a_j theta_i over the steps whose coin was below that task's rate."""
    plugin = make(similarity=by_parity, rate_min=0.1, rate_max=0.9, alpha=0.95)
    iterates: list[dict[str, Tensor]] = []
    rates: list[float] = []
    coins: list[float] = []

    def begin(strategy: Any) -> None:
        if not iterates:
            iterates.append({name: p.detach().double() for name, p in strategy.model.named_parameters()})
            average = plugin.groups[0].average
            draw = average.coin

            def coin() -> float:
                coins.append(draw())
                return coins[-1]

            average.coin = coin  # type: ignore[method-assign]

    def note(strategy: Any) -> None:
        rates.append(plugin.groups[0].average.rate)
        iterates.append({name: p.detach().double() for name, p in strategy.model.named_parameters()})

    common.run([plugin, Spy("before_training_iteration", begin), Spy("after_update", note)])
    each = 2 * 3  # two epochs of 20 samples in batches of 7
    r = {task: update_rate(s, 0.1, 0.9) for task, s in enumerate((0.75, 0.25, 0.75, 0.25))}
    assert rates == [r[task] for task in range(4) for _ in range(each)]
    updated = [coin < rate for coin, rate in zip(coins, rates, strict=True)]
    assert plugin.groups[0].average.updates == sum(updated)
    assert 0 < sum(updated) < len(updated)
    a = [min(1 - 1 / (k + 1), 0.95) if updated[k - 1] else 1.0 for k in range(1, len(updated) + 1)]
    w = [math.prod(a)] + [(1 - a[i]) * math.prod(a[i + 1 :]) for i in range(len(a))]
    assert sum(w) == pytest.approx(1.0)
    found = own(plugin.groups[0].average)
    for name in iterates[0]:
        mean = sum(weight * theta[name] for weight, theta in zip(w, iterates, strict=True))
        assert float((found[name].double() - mean).abs().max()) < 1e-6
    wrong = sum(theta["0.weight"] / len(iterates) for theta in iterates)
    assert float((found["0.weight"].double() - wrong).abs().max()) > 1e-3


def test_the_share_of_updates_is_binomial() -> None:
    plugin = make(similarity=by_parity, rate_min=0.1, rate_max=0.9, mem_size=0)
    updates = [0, 0]

    def count(strategy: Any) -> None:
        for group in plugin.groups:
            updates[group.id] = group.average.updates

    common.run([plugin, Spy("after_update", count)], train_mb_size=1, train_epochs=5)
    n = 20 * 5
    for index, tasks in enumerate(([0.75, 0.25, 0.75, 0.25], [0.75, 0.25, 0.75])):
        r = [update_rate(s, 0.1, 0.9) for s in tasks]
        mean, variance = n * sum(r), n * sum(rate * (1 - rate) for rate in r)
        assert abs(updates[index] - mean) < 4 * math.sqrt(variance)
    assert plugin.groups[0].average.steps == 4 * n
    assert plugin.groups[1].average.steps == 3 * n


def test_measuring_changes_no_random_state_and_no_mode() -> None:
    for similarity in ("product", "fisher", "correlation"):
        seen: list[tuple[Tensor, list[bool], dict[str, Tensor]]] = []

        def look(strategy: Any, seen: list[Any] = seen) -> None:
            modes = [module.training for module in strategy.model.modules()]
            seen.append((torch.get_rng_state(), modes, common.weights(strategy.model)))

        plugin = make(similarity=similarity)
        spies = [Spy(event, look) for event in ("before_training_exp", "after_training_exp") for _ in range(2)]
        common.run([spies[0], spies[2], plugin, spies[1], spies[3]], common.normed)
        assert len(seen) == 4 * common.EXPERIENCES
        for before, after in zip(seen[::2], seen[1::2], strict=True):
            assert torch.equal(before[0], after[0])
            assert before[1] == after[1]
            assert common.same(before[2], after[2])


def test_an_interrupted_task_that_begins_again_stays_in_its_group() -> None:
    plugin = make()
    runner, stop = common.strategy(common.mlp(), [plugin]), [True]

    def fail(strategy: Any) -> None:
        if stop[0] and plugin.experiences == 1 and strategy.clock.train_exp_iterations == 2:
            raise OSError("disk full")

    runner.plugins.append(Spy("before_forward", fail))
    stream = common.benchmark().train_stream
    runner.train(stream[0])
    with pytest.raises(OSError, match="disk full"):
        runner.train(stream[1])
    members = [list(group.members) for group in plugin.groups]
    stop[0] = False
    runner.train(stream[1])
    assert [group.members for group in plugin.groups] == members
    runner.train(stream[2])
    assert sorted(task for group in plugin.groups for task in group.members) == [0, 1, 2]


# ---- streams with known groups ---------------------------------------------------------------------------------------
def fit(plugin: SimEMAPlugin, stream: Any) -> SimEMAPlugin:
    torch.manual_seed(0)
    model = build_network(NetworkSpec("mlp", hidden=(32,), init="xavier"), (1, 8, 8), 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    runner = common.strategy(model, [plugin], optimizer=optimizer, train_mb_size=10, train_epochs=1)
    for experience in stream:
        runner.train(experience)
    return plugin


@pytest.fixture(scope="module")
def clusters() -> Any:
    """Digits turned by angles of two clusters: 0 and 10 degrees, 120 and 130, in turn."""
    spec = StreamSpec("rotated", "digits", "domain", angles=(0.0, 120.0, 10.0, 130.0), samples=800)
    return build_stream(spec).train_stream


@pytest.mark.parametrize(
    ("similarity", "tau_join"),
    [("product", 0.2), ("feature", 0.75), ("fisher", 0.8)],
)
def test_two_clusters_of_angles_are_two_groups(clusters: Any, similarity: Any, tau_join: float) -> None:
    plugin = make(similarity=similarity, tau_join=tau_join, phi="const", mem_size=100, alpha=0.95, sim_ema_lambda=0.5)
    fit(plugin, clusters)
    assert [group.members for group in plugin.groups] == [[0, 2], [1, 3]]


def test_a_label_permuted_twin_joins_by_features_and_founds_a_group_by_the_product(clusters: Any) -> None:
    x, y, _ = as_tensors(clusters[0].dataset)
    parts = [tensor_dataset(ImageTensors(x, (y + shift) % 10), 0) for shift in (0, 3)]
    stream = TensorScenario({"train": parts, "test": parts}).train_stream
    found = {}
    for similarity in ("feature", "product"):
        plugin = fit(make(similarity=similarity, mem_size=50), stream)
        found[similarity] = [group.members for group in plugin.groups]
    assert found == {"feature": [[0, 1]], "product": [[0], [1]]}


# ---- evaluation ------------------------------------------------------------------------------------------------------
def expected_probabilities(plugin: SimEMAPlugin, model: Any, x: Tensor) -> Tensor:
    """One sample's softmax by the words of the documentation, network by network."""
    outputs = [copy.deepcopy(group.average.network).eval()(x).softmax(1) for group in plugin.groups]  # type: ignore[union-attr]
    if plugin.eval_model == "stable":
        return copy.deepcopy(plugin.stable.network).eval()(x).softmax(1)  # type: ignore[union-attr]
    if plugin.eval_model == "working":
        return copy.deepcopy(model).eval()(x).softmax(1)
    if plugin.eval_model == "max_softmax":
        return max(outputs, key=lambda p: float(p.max()))
    if plugin.eval_model == "ensemble":
        return sum(outputs) / len(outputs)  # type: ignore[return-value]
    mean, counts = copy.deepcopy(model).eval(), [len(group.members) for group in plugin.groups]
    states = [group.average.network.state_dict() for group in plugin.groups]  # type: ignore[union-attr]
    for name, place in mean.state_dict().items():
        if place.is_floating_point():
            parts = [count / sum(counts) * state[name] for count, state in zip(counts, states, strict=True)]
            place.copy_(sum(parts))
    return mean(x).softmax(1)


@pytest.mark.parametrize("network", [common.normed, common.mlp])
def test_avalanches_eval_and_predict_see_the_chosen_networks(network: Any) -> None:
    """Outputs and accuracies; also of a plugin that is asked for one kind after another."""
    plugin = make(similarity=by_parity, rate_min=0.1, alpha=0.8, phi="const")
    outputs: list[Tensor] = []
    spy = Spy("after_eval_iteration", lambda strategy: outputs.append(strategy.mb_output.softmax(1)))
    evaluator = EvaluationPlugin(accuracy_metrics(experience=True))
    runner = common.run([plugin, spy], network, evaluator=evaluator)
    before, kept = common.weights(runner.model), averages(plugin)
    stream, seen = common.benchmark().test_stream, []
    data = [[(x[None], int(y)) for x, y, *_ in experience.dataset] for experience in stream]
    for eval_model in EVERY_MODEL:
        plugin.eval_model = eval_model  # type: ignore[assignment]
        with torch.no_grad():
            expected = [torch.cat([expected_probabilities(plugin, runner.model, x) for x, _ in part]) for part in data]
            with evaluation_mode(runner.model):
                whole = torch.cat([x for part in data for x, _ in part])
                predicted = plugin.predict(runner.model, whole, 0).softmax(1)
        outputs.clear()
        found = runner.eval(stream)
        assert torch.allclose(torch.cat(outputs), torch.cat(expected), atol=1e-5)
        assert torch.allclose(predicted, torch.cat(expected), atol=1e-5)
        hits = [p.argmax(1) == torch.tensor([y for _, y in part]) for p, part in zip(expected, data, strict=True)]
        accuracies = [found[name] for name in sorted(found) if name.startswith("Top1_Acc_Exp")]
        assert accuracies == pytest.approx([float(hit.float().mean()) for hit in hits])
        assert all(float((torch.cat(expected) - other).abs().max()) > 1e-3 for other in seen)
        seen.append(torch.cat(expected))
    assert common.same(before, common.weights(runner.model))
    assert all(common.same(a, b) for a, b in zip(kept, averages(plugin), strict=True))


@pytest.mark.parametrize("eval_model", EVERY_MODEL)
@pytest.mark.parametrize(("network", "kind"), [(common.Growing, "ci"), (common.MultiHead, "nc-tasks")])
def test_evaluation_of_heads_that_it_grows_itself(network: Any, kind: str, eval_model: Any) -> None:
    plugin = make(similarity=by_parity, eval_model=eval_model)
    torch.manual_seed(0)
    runner = common.strategy(network(), [plugin], train_epochs=1)
    stream = common.benchmark(kind)
    runner.eval(stream.test_stream)  # before the first step: the network itself
    for experience in stream.train_stream[:2]:
        runner.train(experience)
        runner.eval(stream.test_stream)
    assert all(torch.isfinite(p).all() for p in runner.model.parameters())


@pytest.mark.parametrize("eval_model", EVERY_MODEL)
@pytest.mark.parametrize("peval_mode", ["epoch", "iteration"])
def test_evaluation_inside_training_changes_no_network(eval_model: Any, peval_mode: str) -> None:
    runs = []
    for options in ({}, {"eval_every": 1, "peval_mode": peval_mode}):
        plugin = make(eval_model=eval_model, similarity=by_parity, rate_min=0.2)
        runs.append((common.run([plugin], common.normed, **options), plugin))
    assert same_run(*runs)


# ---- checkpoints, divergence, arguments ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("network", "kind", "options"),
    [
        (common.normed, "nc", {"bn": "copy", "similarity": "product"}),
        (common.Growing, "nc", {"similarity": "fisher", "tau_join": 0.9}),
        (common.MultiHead, "nc-tasks", {"similarity": "correlation", "teacher": "best", "policy": "class_balanced"}),
        (common.Growing, "ci", {"similarity": "feature", "max_groups": 2, "tau_join": 1.0}),
    ],
)
def test_stopped_after_two_experiences_and_restored_it_goes_on_bit_equal(
    network: Any, kind: str, options: dict[str, Any]
) -> None:
    options = {"rate_min": 0.2, "phi": "const"} | options
    stream = common.benchmark(kind).train_stream
    whole = half(network, kind, **options)
    parted = resumed(whole[1], whole[0], **options)
    for runner, _ in (whole, parted):
        common.train(runner, stream, first=2)
    assert same_run(whole, parted)
    assert whole[1].similarities == parted[1].similarities
    assert [group.members for group in whole[1].groups] == [group.members for group in parted[1].groups]


def test_divergence_is_an_error_and_not_an_accuracy() -> None:
    plugin, model = make(sim_ema_lambda=1e6, phi="const"), common.mlp()
    runner = common.strategy(model, [plugin], optimizer=torch.optim.SGD(model.parameters(), lr=1.0))
    with pytest.raises(DivergedError, match=r"the loss is (nan|inf) in experience 1, iteration .*sim_ema_lambda is 1e"):
        common.train(runner, common.benchmark().train_stream)


@pytest.mark.parametrize("eval_model", ["stable", "working", "mean_weights"])
def test_weights_that_are_not_finite_are_not_evaluated(eval_model: Any) -> None:
    plugin = make(eval_model=eval_model)
    runner = common.run([plugin])
    with torch.no_grad():
        for network in (runner.model, plugin.stable.network, plugin.groups[0].average.network):
            next(network.parameters())[0] = float("nan")  # type: ignore[union-attr]
    with pytest.raises(DivergedError, match=f"the {eval_model} network's 0.weight is not finite"):
        runner.eval(common.benchmark().test_stream)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"sim_ema_lambda": -1.0}, ValueError, r"SimEMAPlugin: sim_ema_lambda must be in \[0, inf\), got -1.0"),
        ({"alpha": 1.1}, ValueError, r"alpha must be in \[0, 1\], got 1.1"),
        ({"stable_alpha": -0.1}, ValueError, r"stable_alpha must be in \[0, 1\], got -0.1"),
        ({"stable_rate": "1"}, TypeError, "stable_rate must be a number, got '1'"),
        ({"tau_join": 1.5}, ValueError, r"tau_join must be in \[0, 1\], got 1.5"),
        ({"rate_min": 0.5, "rate_max": 0.4}, ValueError, r"rate_max must be in \[0.5, 1\], got 0.4"),
        ({"max_groups": 0}, ValueError, "max_groups must be an integer >= 1, got 0"),
        ({"n_signature": 501}, ValueError, "n_signature must be an integer of 1 to 500, got 501"),
        ({"n_signature": 0}, ValueError, "n_signature must be an integer >= 1, got 0"),
        ({"similarity": "cka"}, ValueError, "similarity must be one of 'product', 'feature'"),
        ({"phi": "linear"}, ValueError, "phi must be one of 'prop', 'const', 'inverse', got 'linear'"),
        ({"teacher": "all"}, ValueError, "teacher must be one of 'group', 'best', got 'all'"),
        ({"eval_model": "plastic"}, ValueError, "eval_model must be one of"),
        ({"bn": "buffer-forward"}, ValueError, "bn must be one of 'ema', 'copy', got 'buffer-forward'"),
        ({"mem_size": -1}, ValueError, "mem_size must be an integer >= 0, got -1"),
        ({"seed": -1}, ValueError, "seed must be an integer >= 0, got -1"),
    ],
)
def test_bad_hyper_parameters(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(**changes)


def test_a_function_of_similarity_out_of_its_range_is_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"similarity's value must be in \[0, 1\], got 1.5"):
        common.run([make(similarity=lambda task, members: 1.5)])


def test_its_bytes_are_memory_networks_and_signatures() -> None:
    plugin = make(similarity=by_parity)
    runner = common.run([plugin], common.normed)
    network = sum(tensor.nbytes for tensor in runner.model.state_dict().values())
    assert plugin.extra_bytes() == plugin._memory.bytes() + 3 * network  # two groups, and S
    measured = make(similarity="feature", tau_join=0.0)
    common.run([measured], common.normed)
    signature = 16 * 16 * 4
    assert measured.extra_bytes() == measured._memory.bytes() + 3 * network + signature  # a group, S, the frozen one


def test_its_metrics() -> None:
    plugin = make(similarity=by_parity, rate_min=0.0, teacher="best")
    runner = common.run([plugin], train_epochs=1)
    found = {name.split("/")[0]: value[1] for name, value in runner.evaluator.get_all_metrics().items()}
    series = {
        name: [
            value[1][0]
            for key, value in runner.evaluator.get_all_metrics().items()
            if key.startswith(f"SimEMA_{name}/")
        ]
        for name in ("Groups", "Similarity", "Consistency", "Updates", "StableTeacher")
    }
    assert series["Groups"] == [1, 2, 2, 2]
    assert series["Similarity"] == [0.75] * 4
    assert all(0.0 < value <= 1.0 for value in series["Updates"])
    assert all(value > 0.0 for value in series["Consistency"])
    assert all(0.0 <= value <= 1.0 for value in series["StableTeacher"])
    assert "SimEMA_Held" in found
