"""EBLL against its equations by hand, the principal components' bound, its limits, and known faults."""

import copy
from typing import Any

from cl_ext.methods.criterion import ScenarioCrossEntropy
from cl_ext.nn.distillation import Teacher
from cl_ext.plugins import EBLLPlugin, LwFPlugin
from cl_ext.plugins.ebll import AutoEncoder, code, code_loss, train_autoencoder

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from torch.nn import functional

from tests.plugins import common
from tests.plugins.test_lwf import TASKS, decorated, kd

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
B, D, C = 9, 6, 3
SMALL: dict[str, Any] = {"code_size": 4, "ae_lr": 1.0, "ae_epochs": 2, "ae_batch_size": 8}
CODE, LWF, T = 3.0, 0.5, 2.0


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(features: Tensor, features_t: Tensor, weight: Tensor, bias: Tensor) -> float:
    """Sample by sample and unit by unit."""
    total = 0.0
    for f, f_t in zip(features, features_t, strict=True):
        for w, b in zip(weight, bias, strict=True):
            total += float(1 / (1 + (-(w @ f + b)).exp()) - 1 / (1 + (-(w @ f_t + b)).exp())) ** 2
    return total / len(features)


def test_the_code_loss_is_its_definition() -> None:
    features, features_t, weight, bias = _random(B, D), _random(B, D, seed=1), _random(C, D, seed=2), _random(C, seed=3)
    value = float(code_loss(features, features_t, weight, bias))
    assert value == pytest.approx(by_hand(features, features_t, weight, bias), rel=1e-12)
    assert float(code_loss(features, features, weight, bias)) == 0.0


def test_stacked_encoders_are_a_sum_over_tasks() -> None:
    features, features_t = _random(B, D), _random(B, D, seed=1)
    encoders = [(_random(C, D, seed=s), _random(C, seed=s + 9)) for s in range(3)]
    stacked = code_loss(features, features_t, torch.cat([w for w, _ in encoders]), torch.cat([b for _, b in encoders]))
    assert float(stacked) == pytest.approx(sum(by_hand(features, features_t, *e) for e in encoders), rel=1e-12)


def test_what_the_encoder_does_not_see_is_free() -> None:
    """Features that move orthogonally to the rows of W_e keep their code, and the gradient lies in the rows' span."""
    features, weight, bias = _random(B, D), _random(C, D, seed=2), _random(C, seed=3)
    rows = torch.linalg.qr(weight.T)[0]
    move = _random(B, D, seed=4)
    free = move - move @ rows @ rows.T
    torch.testing.assert_close(code(features + 5 * free, weight, bias), code(features, weight, bias))
    assert float(code_loss(features + 5 * free, features, weight, bias)) < 1e-25
    assert float(code_loss(features + move, features, weight, bias)) > 1e-3
    moved = (features + move).requires_grad_()
    (gradient,) = torch.autograd.grad(code_loss(moved, features, weight, bias), moved)
    assert float((gradient @ rows @ rows.T - gradient).abs().max()) < 1e-15 < float(gradient.abs().max())


def test_the_teachers_features_get_no_gradient() -> None:
    features, features_t = _random(B, D).requires_grad_(), _random(B, D, seed=1).requires_grad_()
    code_loss(features, features_t, _random(C, D, seed=2), _random(C, seed=3)).backward()
    assert features_t.grad is None


@pytest.mark.parametrize("size", [1e-2, 1e-3])
def test_a_full_code_can_reconstruct(size: float) -> None:
    """With C = D the logistic function's linear part carries everything: the error falls as size^2."""
    eye = torch.eye(D, dtype=torch.float64)
    linear = AutoEncoder(size * eye, torch.zeros(D), 4 / size * eye, -2 / size * torch.ones(D, dtype=torch.float64))
    linear = AutoEncoder(*(tensor.double() for tensor in linear))
    features = _random(B, D)
    assert 0 < float((linear.reconstruct(features) - features).abs().max()) < 3 * size**2


def _nothing(recon: Tensor, chosen: Tensor) -> Tensor:
    return recon.sum() * 0.0


def _trained(features: Tensor, code_size: int, epochs: int = 400, seed: int = 0, **changes: Any) -> AutoEncoder:
    options = {"task_loss": _nothing, "alpha": 1.0, "learning_rate": 3.0} | changes
    generator = torch.Generator().manual_seed(seed)
    return train_autoencoder(
        features, code_size=code_size, epochs=epochs, batch_size=len(features), generator=generator, **options
    )


def test_no_code_beats_the_principal_components_and_a_full_one_does() -> None:
    """The reconstruction lies in an affine space of C dimensions, so its error is at least the rest's variance."""
    features = _random(40, D) * torch.tensor([3.0, 2.0, 1.5, 1.0, 1.0, 0.5])
    spectrum = torch.linalg.eigvalsh(torch.cov(features.T, correction=0)).flip(0)
    errors = {}
    for code_size in (1, 2, D, 2 * D):
        recon = _trained(features, code_size).reconstruct(features)
        errors[code_size] = float(functional.mse_loss(recon, features))
        rest = float(spectrum[code_size:].sum()) / D
        assert errors[code_size] >= rest
        if code_size < D:
            assert errors[code_size] < float(spectrum[code_size - 1 :].sum()) / D  # better than one component less
    assert errors[2 * D] < 0.05 * errors[1]


def test_the_task_loss_shapes_the_code() -> None:
    """Without reconstruction the code keeps what the head asks for: here one direction of the features."""
    features = _random(60, D)
    y = features[:, 2].gt(0).long()
    head = nn.Linear(D, 2).double()
    with torch.no_grad():
        head.weight.zero_()
        head.weight[1, 2], head.bias[0], head.bias[1] = 4.0, 0.0, 0.0

    def task_loss(recon: Tensor, chosen: Tensor) -> Tensor:
        return functional.cross_entropy(head(recon), y[chosen])

    everything = torch.arange(60)
    trained = _trained(features, 1, alpha=1e-6, task_loss=task_loss)
    with torch.no_grad():
        assert float(task_loss(trained.reconstruct(features), everything)) < 0.1
    direction = trained.weight[0] / trained.weight[0].norm()
    assert float(direction[2].abs()) > 0.9
    assert head.weight.grad is None


def test_an_auto_encoder_has_its_own_randomness() -> None:
    features = _random(20, D)
    state = torch.get_rng_state()
    first, again, other = (_trained(features, 2, epochs=3, seed=s) for s in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.weight, other.weight)
    drawn = AutoEncoder.drawn(10000, 50, torch.Generator().manual_seed(0), features)
    assert 0.0099 < float(drawn.weight.detach().abs().max()) <= 0.01
    assert 0.14 < float(drawn.decoder.detach().abs().max()) <= 50**-0.5


class Oracle(SupervisedPlugin):
    """Compares each step's loss with the loss by hand, from a teacher of its own; the head is the last layer."""

    def __init__(self, plugin: EBLLPlugin, groups: Any, lwf: float) -> None:
        super().__init__()
        self.plugin, self.groups, self.lwf = plugin, groups, lwf
        self.finished, self.codes = 0, []
        self.teacher: Any = None

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.teacher = copy.deepcopy(strategy.model).eval()

    @torch.no_grad()
    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        x, z = strategy.mb_x, strategy.mb_output
        expected = strategy._criterion(z, strategy.mb_y)
        if self.finished:
            z_t = self.teacher(x)
            expected = expected + self.lwf * sum(kd(z[:, g], z_t[:, g]) for g in self.groups(self.finished))
            weight, bias = self.plugin.encoders
            assert weight.shape == (4 * self.finished, 16)
            self.codes.append(by_hand(strategy.model[:-1](x), self.teacher[:-1](x), weight, bias))
            expected = expected + CODE / 2 * self.codes[-1]
        torch.testing.assert_close(strategy.loss.squeeze(), expected.float(), rtol=1e-5, atol=1e-6)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.finished += 1


def _union(finished: int) -> list[list[int]]:
    return [list(range(2 * finished))]


def _run(make: Any = EBLLPlugin, network: Any = common.mlp, kind: str = "nc", groups: Any = _union,
         lwf: float = LWF, **options: Any) -> tuple[Oracle, Any]:  # fmt: skip
    plugin = make(CODE, lwf, **SMALL)
    oracle = Oracle(plugin, groups, lwf)
    runner = common.run([plugin, oracle], network, kind, **options)
    assert max(oracle.codes) > 1e-3
    return oracle, runner


def with_batch_norm() -> nn.Module:
    """In train mode batch norm normalises a batch alike whenever it is asked."""
    layers = nn.Linear(common.FEATURES, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, common.CLASSES)
    layers[1].momentum = 0.0
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("network", "kind"), [(common.mlp, "nc"), (common.mlp, "ci"), (common.mlp, "nc-tasks"), (with_batch_norm, "nc")]
)
def test_each_steps_loss_is_by_hand(network: Any, kind: str) -> None:
    _run(network=network, kind=kind)


def test_task_incremental_with_a_shared_head() -> None:
    _run(groups=lambda finished: TASKS[:finished], criterion=ScenarioCrossEntropy(TASKS))


def test_the_codes_alone() -> None:
    _run(lwf=0.0)


class _TeacherTrains(EBLLPlugin):
    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        super().before_training_exp(strategy, *args, **kwargs)
        if self._teacher is not None:
            self._teacher.network.train()


class _Refreshed(EBLLPlugin):
    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        super().before_training_epoch(strategy, *args, **kwargs)
        if self._teacher is not None:
            self._teacher = Teacher(strategy.model, self._head_of)


class _MeanOverUnits(EBLLPlugin):
    """CLsurvey: `nn.MSELoss`, which divides by the code's size, and no 1/2."""

    def _terms(self, student: Any, teacher: Any) -> dict[str, Tensor]:
        terms = super()._terms(student, teacher)
        if "Code" in terms:
            codes = [code(view.features, *self._encoders) for view in (student, teacher)]
            terms["Code"] = self.ebll_lambda * functional.mse_loss(*codes)
        return terms


class _FirstEncoderOnly(EBLLPlugin):
    def _terms(self, student: Any, teacher: Any) -> dict[str, Tensor]:
        terms = super()._terms(student, teacher)
        if "Code" in terms:
            first = [tensor[: self.code_size] for tensor in self._encoders]
            terms["Code"] = self.ebll_lambda / 2 * code_loss(student.features, teacher.features, *first)
        return terms


@pytest.mark.parametrize(
    ("faulty", "network"),
    [
        (_TeacherTrains, with_batch_norm),
        (_Refreshed, common.mlp),
        (_MeanOverUnits, common.mlp),
        (_FirstEncoderOnly, common.mlp),
    ],
)
def test_negative_control(faulty: Any, network: Any) -> None:
    with pytest.raises(AssertionError, match="Scalars are not close"):
        _run(faulty, network)


def test_conversion_of_clsurveys_strength() -> None:
    """Its alpha on the mean over C units is `ebll_lambda = 2 alpha / C`."""
    features, features_t, weight, bias = _random(B, D), _random(B, D, seed=1), _random(C, D, seed=2), _random(C, seed=3)
    theirs = 0.7 * functional.mse_loss(code(features, weight, bias), code(features_t, weight, bias))
    torch.testing.assert_close(2 * 0.7 / C / 2 * code_loss(features, features_t, weight, bias), theirs)


@pytest.mark.parametrize(
    ("network", "kind"),
    [(common.normed, "nc"), (common.Growing, "ci"), (common.MultiHead, "nc-tasks"), (decorated, "nc-tasks")],
)
def test_without_codes_it_is_lwf_bit_for_bit(network: Any, kind: str) -> None:
    ours = common.run([EBLLPlugin(0.0, LWF, **SMALL)], network, kind)
    lwf = common.run([LwFPlugin(LWF)], network, kind)
    assert common.same(common.weights(ours.model), common.weights(lwf.model))
    assert ours.plugins[0].encoders is None
    assert ours.plugins[0].extra_bytes() == lwf.plugins[0].extra_bytes()


@pytest.mark.parametrize(("network", "kind"), [(common.MultiHead, "nc-tasks"), (decorated, "nc-tasks")])
def test_multi_head_networks_hold_their_codes(network: Any, kind: str) -> None:
    plugin = EBLLPlugin(CODE, LWF, **SMALL)
    ours = common.run([plugin], network, kind)
    lwf = common.run([LwFPlugin(LWF)], network, kind)
    assert not common.same(common.weights(ours.model), common.weights(lwf.model))
    assert plugin.encoders is not None
    assert plugin.encoders[0].shape == (4 * common.EXPERIENCES, 16)


class _Watch(SupervisedPlugin):
    """Stands around the plugin: what training an auto-encoder must leave alone, and what it must see."""

    def __init__(self, plugin: Any) -> None:
        super().__init__()
        self.plugin, self.weights, self.flags, self.gradients = plugin, [], [], []
        self.features: list[Tensor] = []

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        model = strategy.model
        self.state = common.weights(model)
        self.flags = [module.training for module in model.modules()]
        self.gradients = [p.grad.clone() for p in model.parameters()]
        self.random = torch.get_rng_state()

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        model = strategy.model
        assert common.same(self.state, common.weights(model))
        assert self.flags == [module.training for module in model.modules()]
        assert all(torch.equal(g, p.grad) for g, p in zip(self.gradients, model.parameters(), strict=True))
        assert torch.equal(self.random, torch.get_rng_state())


def test_training_an_auto_encoder_leaves_no_trace() -> None:
    plugin = EBLLPlugin(CODE, LWF, **SMALL)
    common.run([plugin, _Watch(plugin)], common.normed)
    assert plugin.encoders is not None


def test_the_auto_encoder_sees_the_networks_resting_features() -> None:
    """In eval mode, its own experience's; CLsurvey trains it with the classifier's dropout on."""
    torch.manual_seed(0)
    plugin = EBLLPlugin(CODE, **SMALL)
    model = common.normed()
    runner = common.strategy(model, [plugin])
    stream = common.benchmark().train_stream
    common.train(runner, stream[:1])
    runner.experience, x = stream[0], torch.stack([sample[0] for sample in stream[0].dataset])
    model.eval()
    features, y, _ = plugin._features_of(runner, model[4])
    torch.testing.assert_close(features, model[:4](x))
    assert y.tolist() == list(stream[0].dataset.targets)
    model.train()
    assert not torch.allclose(features, model[:4](x), rtol=0.05)

    def task_loss(recon: Tensor, chosen: Tensor) -> Tensor:
        return functional.cross_entropy(model[4](recon), y[chosen])

    settings = (plugin.code_size, plugin.ae_alpha, plugin.ae_lr, plugin.ae_epochs, plugin.ae_batch_size)
    expected = train_autoencoder(features, task_loss, *settings, torch.Generator().manual_seed(0))
    assert torch.equal(plugin.encoders[0], expected.weight)
    assert torch.equal(plugin.encoders[1], expected.bias)


def test_seeds_give_other_encoders() -> None:
    first, again, other = (EBLLPlugin(CODE, LWF, **SMALL, seed=seed) for seed in (0, 0, 1))
    for plugin in (first, again, other):
        common.run([plugin])
    assert torch.equal(first.encoders[0], again.encoders[0])
    assert not torch.equal(first.encoders[0], other.encoders[0])
    assert not torch.equal(first.encoders[0][:4], first.encoders[0][4:8])


def test_the_head_by_its_name() -> None:
    """The features are what the named module is given."""

    def network() -> nn.Module:
        layers = nn.Linear(common.FEATURES, 12), nn.ReLU(), nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 8))
        return nn.Sequential(*layers)

    for head, width in ((None, 9), ("2", 12)):
        plugin = EBLLPlugin(CODE, LWF, **SMALL, head=head)
        common.run([plugin], network)
        assert plugin.encoders is not None
        assert plugin.encoders[0].shape == (4 * common.EXPERIENCES, width)
    with pytest.raises(ValueError, match="Sequential has no module 'fc'"):
        common.run([EBLLPlugin(CODE, LWF, **SMALL, head="fc")], network)
    with pytest.raises(ValueError, match="head 'trunk' is not the network's MultiHeadClassifier"):
        common.run([EBLLPlugin(CODE, LWF, **SMALL, head="trunk")], common.MultiHead, "nc-tasks")


def test_cost_and_metrics() -> None:
    plugin = EBLLPlugin(CODE, LWF, **SMALL)
    oracle = Oracle(plugin, _union, LWF)
    runner = common.run([plugin, oracle])
    encoders = 4 * common.EXPERIENCES * (16 + 1) * 4
    assert plugin.extra_bytes() == encoders + sum(p.nbytes for p in runner.model.parameters())
    metrics = runner.evaluator.get_all_metrics()
    values = metrics["EBLL_Code/train_phase/train_stream/Exp003"][1]
    steps = len(oracle.codes) // 6
    assert values == pytest.approx([CODE / 2 * sum(oracle.codes[i:][:steps]) / steps for i in (-2 * steps, -steps)])
    for name in ("Distillation", "ReconstructionError", "ReconstructionTaskLoss"):
        assert min(metrics[f"EBLL_{name}/train_phase/train_stream/Exp001"][1]) > 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"ebll_lambda": -1.0}, ValueError, r"EBLLPlugin: ebll_lambda must be in \[0, inf\), got -1.0"),
        ({"lwf_lambda": None}, TypeError, "EBLLPlugin: lwf_lambda must be a number, got None"),
        ({"temperature": -2.0}, ValueError, r"EBLLPlugin: temperature must be in \(0, inf\), got -2.0"),
        ({"code_size": 0}, ValueError, "EBLLPlugin: code_size must be an integer >= 1, got 0"),
        ({"ae_alpha": -1e-6}, ValueError, r"ae_alpha must be in \[0, inf\)"),
        ({"ae_lr": 0.0}, ValueError, r"ae_lr must be in \(0, inf\), got 0.0"),
        ({"ae_epochs": 1.5}, TypeError, "ae_epochs must be an integer, got 1.5"),
        ({"ae_batch_size": 0}, ValueError, "ae_batch_size must be an integer >= 1, got 0"),
        ({"seed": -1}, ValueError, "seed must be an integer >= 0, got -1"),
    ],
)
def test_bad_hyper_parameters(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        EBLLPlugin(**arguments)
