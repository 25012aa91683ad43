"""CLS-ER against plain PyTorch loops, finite differences and its reductions."""

import copy
import io
from collections.abc import Callable, Mapping
from typing import Any

from cl_ext.methods.criterion import ScenarioCrossEntropy
from cl_ext.nn.averaging import AveragedNetwork
from cl_ext.nn.divergence import DivergedError
from cl_ext.plugins import CLSERPlugin, ERPlugin
from cl_ext.plugins.clser import choose_teacher, consistency

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.plugins import common
from tests.plugins.test_clser_trace import NETWORKS, OURS, distances, record

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
VALUES: dict[str, Any] = {
    "clser_lambda": 2.0, "mem_size": 12, "mem_batch_size": 8, "plastic_alpha": 0.9, "stable_alpha": 0.97,
    "plastic_rate": 0.9, "stable_rate": 0.6, "seed": 3,
}  # fmt: skip
ALL_NETWORKS = pytest.mark.parametrize(
    ("network", "kind"),
    [(common.mlp, "nc"), (common.normed, "nc"), (common.Growing, "ci"), (common.MultiHead, "nc-tasks")],
)


def make(**changes: Any) -> CLSERPlugin:
    return CLSERPlugin(**(VALUES | changes))


def own(average: AveragedNetwork) -> dict[str, Tensor]:
    assert average.network is not None
    return common.weights(average.network)


def three(runner: Any, plugin: CLSERPlugin) -> dict[str, dict[str, Tensor]]:
    return {"working": common.weights(runner.model), "plastic": own(plugin.plastic), "stable": own(plugin.stable)}


def far(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


class Spy(SupervisedPlugin):
    """Calls a function at one event."""

    def __init__(self, event: str, call: Callable[[Any], Any]) -> None:
        super().__init__()
        setattr(self, event, lambda strategy, *args, **kwargs: call(strategy) and None)


# ---- the teacher and the loss ----------------------------------------------------------------------------------------
def test_the_teacher_is_the_one_surer_of_the_true_class() -> None:
    z_s = torch.tensor([[9.0, 9.0, 0.0], [1.0, 0.0, 0.0], [2.0, 1.0, 0.0], [0.0, 5.0, 0.0], [50.0, 0.0, 0.0]])
    z_p = torch.tensor([[2.0, 0.0, 0.0], [9.0, 9.5, 0.0], [2.0, 1.0, 0.0], [0.0, 4.0, 0.0], [60.0, 0.0, 0.0]])
    y = torch.tensor([0, 0, 1, 0, 0])
    p_s, p_p = z_s.softmax(1)[range(5), y], z_p.softmax(1)[range(5), y]
    # a large logit with a small softmax loses (0, 1), equal ones and saturated ones are plastic (2, 4)
    assert [float(s) > float(p) for s, p in zip(p_s, p_p, strict=True)] == [False, True, False, False, False]
    Z, stable = choose_teacher(z_s, z_p, y)
    assert stable.tolist() == [False, True, False, False, False]
    assert torch.equal(Z, torch.stack([z_p[0], z_s[1], z_p[2], z_p[3], z_p[4]]))
    by_logit = z_s[range(5), y] > z_p[range(5), y]
    assert by_logit.tolist()[:2] == [True, False]  # the raw logit would choose the other one


def test_the_teacher_by_a_loop_over_samples() -> None:
    torch.manual_seed(0)
    z_s, z_p, y = torch.randn(500, 7) * 3, torch.randn(500, 7) * 3, torch.randint(7, (500,))
    Z, stable = choose_teacher(z_s, z_p, y)
    for n in range(500):
        s, p = (float(z[n, y[n]].double().exp() / z[n].double().exp().sum()) for z in (z_s, z_p))
        assert bool(stable[n]) == (s > p)
        assert torch.equal(Z[n], z_s[n] if s > p else z_p[n])


def test_the_consistency_is_a_mean_over_samples_and_outputs() -> None:
    z, Z = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 6.0]])
    assert consistency(z, Z).item() == pytest.approx((4 + 9 + 36) / 6)


def test_log_probabilities_with_nll_loss_are_cross_entropy() -> None:
    """The loss reads the label's own output alone; the softmax within the network compares them all."""

    def network() -> nn.Module:
        return nn.Sequential(common.mlp(), nn.LogSoftmax(1))

    ends = []
    for criterion in (nn.NLLLoss(), nn.CrossEntropyLoss()):
        torch.manual_seed(0)
        ends.append(common.weights(common.run([CLSERPlugin(2.0, 12, 8, 0.9, 0.9)], network, criterion=criterion).model))
    for name, weight in ends[0].items():
        assert torch.allclose(weight, ends[1][name], atol=1e-4), name


def test_outputs_that_the_loss_does_not_read_play_no_part() -> None:
    """With a task's own columns cut out, the masked form gives the same: the shared head is a head a task."""
    torch.manual_seed(0)
    z, z_s, z_p = (torch.randn(40, 6) * 2 for _ in range(3))
    y = torch.randint(6, (40,))
    read = (torch.arange(6) // 2)[None] == (y // 2)[:, None]
    Z, stable = choose_teacher(z_s, z_p, y, read)
    cut = [each[read].view(40, 2) for each in (z, z_s, z_p)]
    Z_cut, stable_cut = choose_teacher(cut[1], cut[2], y % 2)
    assert torch.equal(stable, stable_cut)
    assert torch.equal(Z[read].view(40, 2), Z_cut)
    torch.testing.assert_close(consistency(z, Z, read), consistency(cut[0], Z_cut))
    assert not torch.equal(stable, choose_teacher(z_s, z_p, y)[1])


class TwoLayers(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(common.FEATURES, 5), nn.Tanh(), nn.Linear(5, common.CLASSES))
        self.double()


def double_stream() -> Any:
    x, y = common.blobs(10, 1).tensors  # type: ignore[attr-defined]
    dataset = common.labelled(x.double(), y)
    return common.nc_benchmark(dataset, dataset, common.EXPERIENCES, task_labels=False, shuffle=False).train_stream


def test_its_gradient_is_that_of_the_loss_by_finite_differences_and_none_reaches_the_teachers() -> None:
    checked: list[float] = []
    plugin = make()

    def check(strategy: Any) -> None:
        if strategy.clock.train_iterations % 5 != 3:
            return
        model, start = strategy.model, len(plugin._stream[1])
        x, y = strategy.mbatch[0], strategy.mbatch[1]
        assert len(y) > start
        networks = [plugin.plastic.network, plugin.stable.network]
        z_p, z_s = (network(x[start:]) for network in networks if network is not None)
        better = (z_s.softmax(1) > z_p.softmax(1))[range(len(y) - start), y[start:]]
        Z = torch.where(better[:, None], z_s, z_p)

        def loss() -> float:
            with torch.no_grad():
                z = model(x)
                squares = (z[start:] - Z).pow(2).sum() / Z.numel()
                return float(cross_entropy(z, y) + VALUES["clser_lambda"] * squares)

        assert loss() == pytest.approx(strategy.loss.item(), rel=1e-6)  # Avalanche adds it up in float32
        for parameter in model.parameters():
            flat = parameter.data.view(-1)
            for index in range(0, len(flat), 3):
                kept, h = flat[index].item(), 1e-6
                flat[index] = kept + h
                above = loss()
                flat[index] = kept - h
                below = loss()
                flat[index] = kept
                checked.append(abs((above - below) / (2 * h) - float(parameter.grad.view(-1)[index])))
        for network in networks:
            assert network is not None
            assert all(p.grad is None and not p.requires_grad for p in network.parameters())

    model = TwoLayers()
    runner = common.strategy(model, [plugin, Spy("after_backward", check)])
    common.train(runner, double_stream())
    assert len(checked) > 100
    assert max(checked) < 1e-7


# ---- a second derivation: the authors' step in plain PyTorch, with the plugin's draws and coins ----------------------
class Decisions:
    """Records a plugin's draws and coins, and the batches that come from the stream."""

    def __init__(self, plugin: CLSERPlugin) -> None:
        self.batches: list[tuple[Tensor, Tensor]] = []
        self.draws: list[tuple[Tensor, Tensor] | None] = []
        self.coins: dict[str, list[float]] = {"plastic": [], "stable": []}
        sample = plugin._memory.sample_behind

        def sampled(batch: Mapping[str, Tensor], count: int) -> Any:
            joined, start = sample(batch, count), len(batch["y"])
            self.draws.append(None if joined is None else (joined["x"][start:].clone(), joined["y"][start:].clone()))
            return joined

        plugin._memory.sample_behind = sampled  # type: ignore[method-assign]
        for name, average in (("plastic", plugin.plastic), ("stable", plugin.stable)):
            average.coin = self._tossed(average.coin, self.coins[name])  # type: ignore[method-assign]

    def _tossed(self, coin: Callable[[], float], kept: list[float]) -> Callable[[], float]:
        def toss() -> float:
            kept.append(coin())
            return kept[-1]

        return toss

    def see(self, strategy: Any) -> None:
        self.batches.append((strategy.mb_x.clone(), strategy.mb_y.clone()))


def plain(
    network: Callable[[], nn.Module], seen: Decisions, bn: str, shared: bool, fault: str = ""
) -> dict[str, dict[str, Tensor]]:  # fmt: skip
    """The step of the authors' code, written out; dropout layers of the teachers are off."""
    torch.manual_seed(0)
    working = network()
    nets = {name: copy.deepcopy(working) for name in ("plastic", "stable")}
    for net in nets.values():
        net.eval()
        if bn == "buffer-forward":
            [m.train() for m in net.modules() if isinstance(m, nn.BatchNorm1d)]
    working.train()
    optimizer = torch.optim.SGD(working.parameters(), lr=0.05, momentum=0.9)
    for k, ((x, y), drawn) in enumerate(zip(seen.batches, seen.draws, strict=True), start=1):
        optimizer.zero_grad()
        loss, inputs, labels, Z = torch.zeros(()), x, y, torch.zeros(0)
        torch.manual_seed(k)
        if drawn is not None:
            with torch.no_grad():
                z_p, z_s = nets["plastic"](drawn[0]), nets["stable"](drawn[0])
            hit = torch.arange(len(drawn[1])), drawn[1]
            Z = torch.where((z_s.softmax(1)[hit] > z_p.softmax(1)[hit])[:, None], z_s, z_p)
            inputs, labels = torch.cat([x, drawn[0]]), torch.cat([y, drawn[1]])
            if not shared and len(drawn[1]) > 1:
                loss = loss + VALUES["clser_lambda"] * (working(drawn[0]) - Z).square().mean()
        z = working(inputs)
        if drawn is not None and (shared or len(drawn[1]) == 1):
            loss = loss + VALUES["clser_lambda"] * (z[len(x) :] - Z).square().mean()
        (loss + cross_entropy(z, labels)).backward()
        optimizer.step()
        for name, net in nets.items():
            coin = seen.coins[name][k - 1]
            a = min(1 - 1 / (k + 1), VALUES[f"{name}_alpha"])
            pairs = list(zip(net.parameters(), working.parameters(), strict=True))
            for mine, theirs in zip(net.modules(), working.modules(), strict=True):
                if not isinstance(mine, nn.BatchNorm1d) or bn == "buffer-forward":
                    continue
                statistics = [(mine.running_mean, theirs.running_mean), (mine.running_var, theirs.running_var)]
                if bn == "ema":
                    pairs += statistics
                else:
                    [one.copy_(other) for one, other in statistics]
            if fault == "gradient, not weights":
                coin = 1.0
            for mine, theirs in pairs if coin < VALUES[f"{name}_rate"] else []:
                mine.data = a * mine.data + (1 - a) * theirs.data
    nets["working"] = working
    return {name: common.weights(net) for name, net in nets.items()}


@pytest.mark.parametrize("network", [common.mlp, common.normed])
@pytest.mark.parametrize("bn", ["buffer-forward", "ema", "copy"])
@pytest.mark.parametrize("shared", [True, False])
def test_it_equals_the_step_written_out(network: Any, bn: str, shared: bool) -> None:
    plugin = make(bn=bn, shared_forward=shared)
    seen, steps = Decisions(plugin), [0]

    def begin(strategy: Any) -> None:
        seen.see(strategy)
        steps[0] += 1
        torch.manual_seed(steps[0])  # of dropout

    runner = common.run([Spy("before_forward", begin), plugin], network, "nc")
    expected, found = plain(network, seen, bn, shared), three(runner, plugin)
    for name, weights in expected.items():
        counts = {key for key in weights if key.endswith("num_batches_tracked")}
        ours = {key: value for key, value in found[name].items() if key not in counts}
        assert far(ours, {key: value for key, value in weights.items() if key not in counts}) < 2e-5, name
    never = plain(network, seen, bn, shared, "gradient, not weights")
    assert far(found["stable"], never["stable"]) > 1e-2


def test_shared_and_second_forward_agree_on_an_mlp_and_not_with_batch_norm() -> None:
    for network, equal in ((common.mlp, True), (common.normed, False)):
        runs = []
        for shared in (True, False):
            plugin = make(shared_forward=shared)
            runs.append(three(common.run([plugin], network), plugin))
        distance = far(runs[0]["working"], runs[1]["working"])
        assert distance < 1e-5 if equal else distance > 1e-2


# ---- reductions ------------------------------------------------------------------------------------------------------
@ALL_NETWORKS
@pytest.mark.parametrize("options", [{}, {"shared_forward": False, "bn": "ema"}, {"policy": "class_balanced"}])
def test_without_consistency_the_working_network_is_that_of_er_bit_for_bit(
    network: Any, kind: str, options: dict[str, Any]
) -> None:
    own_options = {key: value for key, value in options.items() if key == "policy"}
    er = common.run([ERPlugin(12, 8, seed=3, **own_options)], network, kind)
    state = torch.get_rng_state()
    ours = common.run([make(clser_lambda=0.0, **options)], network, kind)
    assert torch.equal(state, torch.get_rng_state())
    assert common.same(common.weights(er.model), common.weights(ours.model))
    barely = common.run([make(clser_lambda=1e-3, **options)], network, kind)
    assert not common.same(common.weights(er.model), common.weights(barely.model))
    other = common.run([make(clser_lambda=0.0, **options | {"seed": 4})], network, kind)
    assert not common.same(common.weights(er.model), common.weights(other.model))


def test_equal_averages_are_one_and_the_choice_is_then_none() -> None:
    """alpha_P = alpha_S and r_P = r_S = 1: Mean-ER, whichever teaches; also in the second implementation."""
    plugin = make(plastic_alpha=0.95, stable_alpha=0.95, plastic_rate=1.0, stable_rate=1.0)
    runner = common.run([plugin])
    assert common.same(own(plugin.plastic), own(plugin.stable))
    assert not common.same(own(plugin.plastic), common.weights(runner.model))
    equal = OURS | {"plastic_alpha": 0.95, "stable_alpha": 0.95, "plastic_rate": 1.0, "stable_rate": 1.0}
    for fault in ("", "worse teacher"):
        found = distances(record(equal, fault), equal)
        assert all(found[name] < 5e-6 for name in NETWORKS), (fault, found)


def test_limits_of_rate_and_decay() -> None:
    torch.manual_seed(0)
    first = common.weights(common.mlp())
    plugin = make(plastic_rate=1.0, plastic_alpha=0.0, stable_rate=0.0)
    runner = common.run([plugin])
    assert common.same(own(plugin.plastic), common.weights(runner.model))
    assert common.same(own(plugin.stable), first)


def test_averages_count_steps_over_the_whole_stream_and_toss_coins_of_their_own() -> None:
    plugin = make(plastic_rate=0.5, stable_rate=0.5)
    seen = Decisions(plugin)
    common.run([plugin])
    steps = common.EXPERIENCES * 2 * 3  # two epochs of 20 samples in batches of 7
    assert plugin.plastic.steps == plugin.stable.steps == steps == len(seen.coins["plastic"])
    assert plugin.plastic.updates == sum(coin < 0.5 for coin in seen.coins["plastic"])
    assert seen.coins["plastic"] != seen.coins["stable"]


# ---- heads and task-incremental losses -------------------------------------------------------------------------------
def test_grown_heads_keep_what_was_averaged_and_start_new_units_as_copies() -> None:
    plugin = make(plastic_rate=1.0, stable_rate=1.0)
    heads: list[tuple[dict[str, Tensor], ...]] = []
    kept: list[dict[str, Tensor]] = []

    def look(strategy: Any) -> None:
        if strategy.clock.train_exp_iterations == 0:
            heads.append((common.weights(strategy.model), own(plugin.plastic), own(plugin.stable)))

    runner = common.run([plugin, Spy("before_forward", look), Spy("after_training_exp", lambda _: kept.append(
        own(plugin.stable)))], common.Growing)  # fmt: skip
    assert [len(working["head.classifier.bias"]) for working, *_ in heads] == [2, 4, 6, 8]
    for old, (working, *averages) in zip(kept, heads[1:], strict=False):
        known = len(old["head.classifier.bias"])
        for average in averages:
            assert torch.equal(average["head.active_units"], working["head.active_units"])
            assert torch.equal(average["head.classifier.weight"][known:], working["head.classifier.weight"][known:])
        assert torch.equal(averages[1]["head.classifier.weight"][:known], old["head.classifier.weight"])
        assert torch.equal(averages[1]["trunk.0.weight"], old["trunk.0.weight"])
    assert far(own(plugin.stable), common.weights(runner.model)) > 1e-3


def test_with_a_tasks_own_classes_in_the_loss_no_other_row_of_the_head_learns_from_a_sample() -> None:
    """The consistency of the last task's samples, all that is replayed, moves no row of another task."""
    tasks = [[2 * task, 2 * task + 1] for task in range(common.EXPERIENCES)]
    torch.manual_seed(0)
    plugin = make()
    model = common.mlp()
    head = model[2]
    assert isinstance(head, nn.Linear)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)  # momentum would move rows without a gradient
    runner = common.strategy(model, [plugin], criterion=ScenarioCrossEntropy(tasks), optimizer=optimizer)
    rows: list[Tensor] = []
    for number, experience in enumerate(common.benchmark().train_stream):
        runner.train(experience)
        rows.append(head.weight.detach().clone())
        if number == 0:
            plugin._memory = make()._memory  # forgets the first task's samples
    assert torch.equal(rows[0][:2], rows[1][:2])
    assert not torch.equal(rows[0][2:4], rows[1][2:4])
    assert torch.equal(rows[0][4:], rows[1][4:])
    assert not torch.equal(rows[2][2:4], rows[3][2:4])  # these are replayed


# ---- evaluation ------------------------------------------------------------------------------------------------------
def accuracies(runner: Any) -> dict[str, float]:
    found = runner.eval(common.benchmark().test_stream)
    return {name: value for name, value in found.items() if name.startswith("Top1_Acc_Exp")}


@pytest.mark.parametrize("eval_model", ["stable", "plastic", "working"])
@pytest.mark.parametrize("network", [common.normed, common.mlp])
def test_avalanches_eval_sees_the_chosen_network(eval_model: Any, network: Any) -> None:
    plugin = make(eval_model=eval_model, plastic_alpha=0.99, stable_alpha=0.999, stable_rate=0.2)
    evaluator = EvaluationPlugin(accuracy_metrics(experience=True))
    runner = common.run([plugin], network, evaluator=evaluator, train_epochs=1)
    before = three(runner, plugin)
    networks = {"working": runner.model, "plastic": plugin.plastic.network, "stable": plugin.stable.network}
    expected = {}
    for name, each in networks.items():
        assert isinstance(each, nn.Module)
        probe = copy.deepcopy(each).eval()
        hits = [
            [int(probe(x[None]).argmax()) == int(y) for x, y, *_ in experience.dataset]
            for experience in common.benchmark().test_stream
        ]
        expected[name] = [sum(part) / len(part) for part in hits]
    assert expected["stable"] != expected["working"]
    assert list(accuracies(runner).values()) == pytest.approx(expected[eval_model])
    assert plugin.evaluated_network(runner.model) is networks[eval_model]
    after = three(runner, plugin)
    assert all(common.same(before[name], after[name]) for name in before)
    plugin.eval_model = "plastic"
    assert list(accuracies(runner).values()) == pytest.approx(expected["plastic"])


@pytest.mark.parametrize("network", [common.mlp, common.normed])
@pytest.mark.parametrize("peval_mode", ["epoch", "iteration"])
def test_evaluation_inside_training_changes_none_of_the_three(network: Any, peval_mode: str) -> None:
    runs = []
    for options in ({}, {"eval_every": 1, "peval_mode": peval_mode}):
        plugin = make()
        objects: list[Any] = []

        def look(strategy: Any, objects: list[Any] = objects) -> None:
            held = [p for group in strategy.optimizer.param_groups for p in group["params"]]
            assert {id(p) for p in held} == {id(p) for p in strategy.model.parameters()}
            assert all(module.training for module in strategy.model.modules())
            objects.append(strategy.model)

        runner = common.run([plugin, Spy("before_update", look)], network, **options)
        assert all(each is runner.model for each in objects)
        runs.append(three(runner, plugin) | {"coins": {"p": plugin.plastic._coins.get_state()}})
    assert all(common.same(runs[0][name], runs[1][name]) for name in runs[0])


def test_before_the_first_step_evaluation_sees_the_network_itself() -> None:
    plugin, model = make(), common.mlp()
    assert plugin.evaluated_network(model) is model
    runner = common.strategy(model, [plugin])
    before = common.weights(model)
    runner.eval(common.benchmark().test_stream)
    assert common.same(before, common.weights(model))


def test_an_evaluation_that_fails_leaves_weights_that_training_puts_right() -> None:
    plugin = make()
    runner = common.run([plugin])
    before = common.weights(runner.model)

    class Broken(SupervisedPlugin):
        def before_eval_iteration(self, strategy: Any, **kwargs: Any) -> None:
            raise OSError("disk full")

    broken = Broken()
    runner.plugins.append(broken)
    with pytest.raises(OSError, match="disk full"):
        runner.eval(common.benchmark().test_stream)
    runner.plugins.remove(broken)
    started: list[dict[str, Tensor]] = []
    runner.plugins.append(Spy("before_training_iteration", lambda s: started.append(common.weights(s.model))))
    runner.train(common.benchmark().train_stream[0])
    assert common.same(before, started[0])


# ---- checkpoints, divergence, arguments ------------------------------------------------------------------------------
@pytest.mark.parametrize("bn", ["buffer-forward", "ema", "copy"])
def test_stopped_after_two_experiences_and_restored_it_goes_on_bit_equal(bn: Any) -> None:
    stream = common.benchmark().train_stream
    whole = make(bn=bn)
    expected = three(common.run([whole], common.normed), whole)
    torch.manual_seed(0)
    first = make(bn=bn)
    runner = common.strategy(common.normed(), [first])
    common.train(runner, stream[:2])
    file = io.BytesIO()
    torch.save([runner.model.state_dict(), runner.optimizer.state_dict(), first.state_dict()], file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    model, plugin = common.normed(), make(bn=bn)
    runner = common.strategy(model, [plugin])
    runner.make_optimizer(reset_optimizer_state=True)
    model.load_state_dict(state[0])
    runner.optimizer.load_state_dict(state[1])
    plugin.load_state_dict(state[2])
    assert far(common.weights(plugin.evaluated_network(model)), own(first.stable)) == 0.0
    runner.eval(common.benchmark().test_stream)
    common.train(runner, stream, first=2)
    found = three(runner, plugin)
    assert all(common.same(expected[name], found[name]) for name in expected)
    assert (plugin.stable.steps, plugin.stable.updates) == (whole.stable.steps, whole.stable.updates)


def test_divergence_is_an_error_and_not_an_accuracy() -> None:
    plugin, model = make(clser_lambda=1e6), common.mlp()
    runner = common.strategy(model, [plugin], optimizer=torch.optim.SGD(model.parameters(), lr=1.0))
    with pytest.raises(
        DivergedError, match=r"the loss is (nan|inf) in experience 1, iteration \d+.*clser_lambda is 1e"
    ):
        common.train(runner, common.benchmark().train_stream)


@pytest.mark.parametrize("eval_model", ["stable", "plastic", "working"])
def test_weights_that_are_not_finite_are_not_evaluated(eval_model: Any) -> None:
    plugin = make(eval_model=eval_model)
    runner = common.run([plugin])
    runner.eval(common.benchmark().test_stream)
    before = common.weights(runner.model)
    with torch.no_grad():
        next(plugin.evaluated_network(runner.model).parameters())[0] = float("nan")
    with pytest.raises(DivergedError, match=f"the {eval_model} network's 0.weight is not finite"):
        runner.eval(common.benchmark().test_stream)
    if eval_model != "working":
        assert common.same(before, common.weights(runner.model))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"clser_lambda": -1.0}, ValueError, r"CLSERPlugin: clser_lambda must be in \[0, inf\), got -1.0"),
        ({"plastic_alpha": 1.1}, ValueError, r"plastic_alpha must be in \[0, 1\], got 1.1"),
        ({"stable_alpha": -0.1}, ValueError, r"stable_alpha must be in \[0, 1\], got -0.1"),
        ({"plastic_rate": 2}, ValueError, r"plastic_rate must be in \[0, 1\], got 2"),
        ({"stable_rate": "1"}, TypeError, "stable_rate must be a number, got '1'"),
        ({"eval_model": "slow"}, ValueError, "eval_model must be one of 'stable', 'plastic', 'working', got 'slow'"),
        ({"bn": "train"}, ValueError, "bn must be one of 'buffer-forward', 'ema', 'copy', got 'train'"),
        ({"mem_size": -1}, ValueError, "mem_size must be an integer >= 0, got -1"),
        ({"mem_batch_size": 0}, ValueError, "mem_batch_size must be an integer >= 1, got 0"),
        ({"policy": "fifo"}, ValueError, "policy must be one of"),
        ({"seed": -1}, ValueError, "seed must be an integer >= 0, got -1"),
    ],
)
def test_bad_hyper_parameters(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(**changes)


def test_its_bytes_are_the_memory_and_two_networks() -> None:
    plugin = make()
    runner = common.run([plugin], common.normed)
    network = sum(tensor.nbytes for tensor in runner.model.state_dict().values())
    assert plugin.extra_bytes() == plugin._memory.bytes() + 2 * network


def test_its_metrics() -> None:
    plugin = make(stable_rate=0.0, plastic_rate=1.0)
    runner = common.run([plugin])
    found = {name.split("/")[0]: value[1] for name, value in runner.evaluator.get_all_metrics().items()}
    assert found["CLSER_PlasticUpdates"] == [1.0, 1.0]
    assert found["CLSER_StableUpdates"] == [0.0, 0.0]
    assert all(0.0 <= value <= 1.0 for value in found["CLSER_StableTeacher"])
    assert all(value > 0.0 for value in found["CLSER_Consistency"])
