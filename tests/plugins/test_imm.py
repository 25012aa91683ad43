"""IMM: what evaluation sees, what training never sees, and the ways in which public codes lose one or the other."""

from typing import Any

from cl_ext.methods.criterion import ScenarioCrossEntropy
from cl_ext.nn.fisher import diagonal_fisher
from cl_ext.plugins import IMMPlugin
from cl_ext.plugins.imm import EPSILON

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
Named = dict[str, Tensor]


class _Record(SupervisedPlugin):
    """The weights at each experience's end, and what each evaluation ran with."""

    def __init__(self) -> None:
        super().__init__()
        self.theta: list[Named] = []
        self.fisher: list[Named] = []
        self.evaluated: list[Named] = []

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.theta.append(common.weights(strategy.model))
        parameters = dict(strategy.model.named_parameters())
        self.fisher.append(diagonal_fisher(strategy.model, parameters, strategy.experience.dataset))

    def before_eval_forward(self, strategy: Any, **kwargs: Any) -> None:
        self.evaluated.append(common.weights(strategy.model))


def run(plugin: Any, network: Any = common.mlp, kind: str = "nc", **options: Any) -> tuple[Any, _Record]:
    record = _Record()
    runner = common.run([record, plugin] if plugin else [record], network, kind, **options)
    return runner, record


def close(a: Named, b: Named, rtol: float = 1e-5, atol: float = 1e-6) -> bool:
    return all(torch.allclose(a[name], b[name], rtol=rtol, atol=atol) for name in b)


def mean(theta: list[Named], weights: list[float]) -> Named:
    return {n: sum(w * t[n] for w, t in zip(weights, theta, strict=True)) for n in theta[0]}


@pytest.mark.parametrize(("alpha", "weights"), [(None, [0.25] * 4), (0.7, [0.1, 0.1, 0.1, 0.7])])
def test_evaluation_sees_the_mean(alpha: float | None, weights: list[float]) -> None:
    plugin = IMMPlugin(alpha=alpha)
    runner, record = run(plugin)
    expected = mean(record.theta, weights)
    assert close(plugin.merged_weights, expected)
    runner.eval(common.benchmark().test_stream)
    assert common.same(record.evaluated[-1], plugin.merged_weights)
    assert not close(record.evaluated[-1], record.theta[-1])
    assert common.same(common.weights(plugin.merged_network(runner.model)), plugin.merged_weights)
    with plugin.merged(runner.model):
        assert common.same(common.weights(runner.model), plugin.merged_weights)
    assert common.same(common.weights(runner.model), record.theta[-1])


def test_evaluation_sees_the_mode() -> None:
    """From the Fishers and weights of each experience's end, kept in lists."""
    plugin = IMMPlugin("mode")
    runner, record = run(plugin)
    for name, merged in plugin.merged_weights.items():
        fisher = [f[name].double() + EPSILON for f in record.fisher]
        expected = sum(f * t[name] for f, t in zip(fisher, record.theta, strict=True)) / sum(fisher)
        torch.testing.assert_close(merged.double(), expected, rtol=1e-4, atol=1e-6)
    runner.eval(common.benchmark().test_stream)
    assert common.same(record.evaluated[-1], plugin.merged_weights)
    assert not close(plugin.merged_weights, mean(record.theta, [0.25] * 4), rtol=0.05)


@pytest.mark.parametrize("merge", ["mean", "mode"])
@pytest.mark.parametrize("options", [{}, {"eval_every": 1}, {"eval_every": 1, "peval_mode": "iteration"}])
def test_training_never_sees_the_merge(merge: Any, options: Any) -> None:
    """With weight-transfer alone the weights of each experience are Naive's, bit for bit."""
    _, ours = run(IMMPlugin(merge), **options)
    _, naive = run(None)
    assert all(common.same(a, b) for a, b in zip(ours.theta, naive.theta, strict=True))


class _NeverRestores(IMMPlugin):
    """The merged weights stay in the network after an evaluation."""

    def after_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self._swap._own = {}


class _TrainsOnTheMerge(IMMPlugin):
    """The next experience starts from the merge."""

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        super().before_training_exp(strategy, *args, **kwargs)
        strategy.model.load_state_dict(self._merged or strategy.model.state_dict())


@pytest.mark.parametrize("faulty", [_NeverRestores, _TrainsOnTheMerge])
def test_negative_control_training_sees_the_merge(faulty: Any) -> None:
    _, wrong = run(faulty(), eval_every=1)
    _, naive = run(None)
    assert not common.same(wrong.theta[-1], naive.theta[-1])


class _NeverWritesBack(IMMPlugin):
    """The HAT repository's mode-IMM: the merged weights are computed and never put into the network."""

    def before_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        pass


def test_negative_control_the_merge_is_never_written_back() -> None:
    plugin = _NeverWritesBack("mode")
    runner, record = run(plugin)
    runner.eval(common.benchmark().test_stream)
    assert not close(record.evaluated[-1], plugin.merged_weights)
    assert common.same(record.evaluated[-1], record.theta[-1])


class _RunningAverage(IMMPlugin):
    """The HAT repository's mean-IMM: theta_k is averaged with the merge before it, which is trained on."""

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        super().before_training_exp(strategy, *args, **kwargs)
        self._before = common.weights(strategy.model)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        super().after_training_exp(strategy, *args, **kwargs)
        k = self.experiences
        now = strategy.model.state_dict()
        strategy.model.load_state_dict({n: (t + (k - 1) * self._before[n]) / k for n, t in now.items()})


def test_negative_control_running_average() -> None:
    runner, _ = run(_RunningAverage())
    _, naive = run(None)
    assert not close(common.weights(runner.model), mean(naive.theta, [0.25] * 4), rtol=0.02)


def test_before_the_first_merge_evaluation_sees_the_network() -> None:
    plugin = IMMPlugin()
    record = _Record()
    runner = common.strategy(common.mlp(), [record, plugin])
    before = common.weights(runner.model)
    assert plugin.merged_network(runner.model) is runner.model
    runner.eval(common.benchmark().test_stream)
    assert common.same(record.evaluated[-1], before)


def test_one_experience_is_the_network_itself() -> None:
    for merge in ("mean", "mode"):
        plugin = IMMPlugin(merge)  # type: ignore[arg-type]
        runner = common.strategy(common.normed(), [plugin])
        common.train(runner, common.benchmark().train_stream[:1])
        assert common.same(common.merged(runner), common.weights(runner.model))


def test_each_task_keeps_its_own_head() -> None:
    """Multi-head: the trunk is the mean, and the heads are the network's, as each task left them."""
    plugin = IMMPlugin()
    runner, record = run(plugin, common.MultiHead, "nc-tasks")
    assert {name.split(".")[0] for name in plugin.merged_weights} == {"trunk"}
    trunk = [{n: t for n, t in theta.items() if n.startswith("trunk")} for theta in record.theta]
    assert close(plugin.merged_weights, mean(trunk, [0.25] * 4))
    network = common.weights(plugin.merged_network(runner.model))
    for task, theta in enumerate(record.theta):
        for name in theta:
            if f"classifiers.{task}." in name:
                assert torch.equal(network[name], theta[name])


def test_a_shared_head_in_a_task_incremental_stream() -> None:
    """The loss restricted to a task's classes leaves other rows alone (plain SGD): each row is its own task's."""
    tasks = [[0, 1], [2, 3], [4, 5], [6, 7]]
    plugin = IMMPlugin(heads="exclude")
    optimizer = torch.optim.SGD((model := common.mlp()).parameters(), lr=0.05)
    record = _Record()
    runner = common.strategy(model, [record, plugin], optimizer=optimizer, criterion=ScenarioCrossEntropy(tasks))
    common.train(runner, common.benchmark().train_stream)
    network = common.weights(plugin.merged_network(model))
    for classes, theta in zip(tasks, record.theta, strict=True):
        assert torch.equal(network["2.weight"][classes], theta["2.weight"][classes])
    assert not torch.equal(network["0.weight"], record.theta[-1]["0.weight"])


def test_a_growing_head_is_merged_over_the_networks_that_had_its_rows() -> None:
    plugin = IMMPlugin()
    _, record = run(plugin, common.Growing)
    name = "head.classifier.weight"
    for row in range(common.CLASSES):
        known = [theta[name][row] for theta in record.theta if row < len(theta[name])]
        torch.testing.assert_close(plugin.merged_weights[name][row], torch.stack(known).mean(0), rtol=1e-5, atol=1e-6)
    assert [len(theta[name]) for theta in record.theta] == [2, 4, 6, 8]


def test_batch_norm_is_measured_anew() -> None:
    """The merged network's statistics are the last experience's data through the merged weights."""
    plugin = IMMPlugin()
    runner, record = run(plugin, common.normed)
    network = plugin.merged_network(runner.model).eval()
    x = torch.stack([sample[0] for sample in common.benchmark().train_stream[3].dataset])
    h = network[0](x)
    torch.testing.assert_close(network[1].running_mean, h.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network[1].running_var, h.var(0), rtol=1e-4, atol=1e-5)
    averaged = torch.stack([theta["1.running_var"] for theta in record.theta]).mean(0)
    assert not torch.allclose(network[1].running_var, averaged, rtol=0.1)
    assert common.same(common.weights(runner.model), record.theta[-1])


class _Steps(SupervisedPlugin):
    """The gradient before and after the plugins between two of these added theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.gradients: list[list[Tensor]] = []

    def after_backward(self, strategy: Any, **kwargs: Any) -> None:
        self.gradients.append([p.grad.clone() for p in strategy.model.parameters()])


def test_l2_transfer_is_its_gradient() -> None:
    """Nothing in the first experience, then 2 lambda (theta - theta_{k-1}): no factor 1/2."""
    before, after, model = _Steps(), _Steps(), common.mlp()
    runner = common.strategy(model, [before, IMMPlugin(l2_lambda=0.3), after], train_epochs=1)
    stream = common.benchmark().train_stream
    runner.train(stream[0])
    assert all(torch.equal(a, b) for x, y in zip(before.gradients, after.gradients, strict=True)
               for a, b in zip(x, y, strict=True))  # fmt: skip
    anchor = [p.detach().clone() for p in model.parameters()]
    seen: list[list[Tensor]] = []

    class Weights(SupervisedPlugin):
        def before_update(self, strategy: Any, **kwargs: Any) -> None:
            seen.append([p.detach().clone() for p in model.parameters()])

    runner.plugins.append(Weights())
    first = len(before.gradients)
    runner.train(stream[1])
    for g, total, theta in zip(before.gradients[first:], after.gradients[first:], seen, strict=True):
        for a, b, p, old in zip(g, total, theta, anchor, strict=True):
            torch.testing.assert_close(b - a, 0.6 * (p - old), rtol=1e-3, atol=1e-6)
    assert not torch.equal(seen[-1][0], anchor[0])


def test_strong_l2_transfer_keeps_the_weights() -> None:
    _, free = run(IMMPlugin())
    _, tied = run(IMMPlugin(l2_lambda=5.0))
    moved = [float((r.theta[-1]["0.weight"] - r.theta[0]["0.weight"]).norm()) for r in (free, tied)]
    assert moved[1] < 0.3 * moved[0]


def test_drop_transfer_starts_in_the_second_experience_and_leaves_no_hook() -> None:
    runner, dropped = run(IMMPlugin(drop_keep=0.5))
    _, plain = run(IMMPlugin())
    assert common.same(dropped.theta[0], plain.theta[0])
    assert not close(dropped.theta[1], plain.theta[1])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in runner.model.modules())


def test_drop_transfer_with_a_copy_made_in_the_middle() -> None:
    """The network that predicts is copied while the hooks are on, and has the plain forward pass."""
    plugin = IMMPlugin(drop_keep=0.5)
    outputs: list[tuple[Tensor, Tensor]] = []

    class Predict(SupervisedPlugin):
        @torch.no_grad()
        def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
            network = plugin.merged_network(strategy.model).eval()
            x = strategy.mb_x
            if network is not strategy.model:
                w = plugin.merged_weights
                h = (x @ w["0.weight"].t() + w["0.bias"]).relu()
                outputs.append((network(x), h @ w["2.weight"].t() + w["2.bias"]))
            strategy.model.train()

    ours = common.run([plugin, Predict()])
    for found, expected in outputs:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert len(outputs) > 10
    assert common.same(common.weights(ours.model), common.weights(common.run([IMMPlugin(drop_keep=0.5)]).model))


@pytest.mark.parametrize("network", [common.Growing, common.MultiHead])
def test_transfers_go_on_where_evaluation_replaces_a_head(network: Any) -> None:
    torch.manual_seed(0)
    stream = common.benchmark("nc-tasks")
    plugin = IMMPlugin(l2_lambda=0.1, drop_keep=0.5, heads="include")
    runner = common.strategy(network(), [plugin], eval_every=1, peval_mode="epoch")
    for experience in stream.train_stream:
        runner.train(experience, eval_streams=[stream.test_stream])
    assert all(bool(torch.isfinite(p).all()) for p in runner.model.parameters())


def test_metrics() -> None:
    plugin = IMMPlugin(l2_lambda=0.1)
    runner, record = run(plugin)
    metrics = runner.evaluator.get_all_metrics()
    last = metrics["IMM_MergeDistance/train_phase/train_stream/Exp003"][1][0]
    theta = torch.cat([t.flatten() for t in record.theta[-1].values()])
    merged = torch.cat([plugin.merged_weights[n].flatten() for n in record.theta[-1]])
    assert last == pytest.approx(float((merged - theta).norm() / theta.norm()), rel=1e-4)
    assert metrics["IMM_MergeDistance/train_phase/train_stream/Exp000"][1] == [0.0]
    assert metrics["IMM_Penalty/train_phase/train_stream/Exp000"][1] == [0.0, 0.0]
    assert min(metrics["IMM_Penalty/train_phase/train_stream/Exp001"][1]) > 0.0


def test_without_the_heads_something_must_be_left() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(common.FEATURES, common.CLASSES))
    runner = common.strategy(model, [IMMPlugin(heads="exclude")])
    with pytest.raises(ValueError, match="IMMPlugin: without the heads there is no trainable parameter"):
        runner.train(common.benchmark().train_stream[0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"merge": "sum"}, ValueError, "IMMPlugin: merge must be one of 'mean', 'mode', got 'sum'"),
        ({"alpha": 0.0}, ValueError, r"alpha must be in \(0, 1\], got 0.0"),
        ({"alpha": 1.1}, ValueError, r"alpha must be in \(0, 1\], got 1.1"),
        ({"alpha": "1/K"}, TypeError, "alpha must be a number, got '1/K'"),
        ({"l2_lambda": -1e-4}, ValueError, r"l2_lambda must be in \[0, inf\), got -0.0001"),
        ({"drop_keep": 0}, ValueError, r"drop_keep must be in \(0, 1\], got 0"),
        ({"heads": "own"}, ValueError, "heads must be one of 'auto', 'include', 'exclude', got 'own'"),
        ({"fisher": "true"}, ValueError, "fisher must be one of 'exact'"),
        ({"n_samples": 0}, ValueError, "n_samples must be an integer >= 1, got 0"),
        ({"seed": -1}, ValueError, "seed must be an integer >= 0, got -1"),
    ],
)
def test_bad_hyper_parameters(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        IMMPlugin(**arguments)
