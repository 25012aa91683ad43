"""Expert Gate: samples are routed one by one, relatedness decides, earlier experts stay exact, LwF is real."""

import copy
import math
from typing import Any

import cl_ext  # noqa: F401
from cl_ext.models.expert_network import ExpertNetwork, experts
from cl_ext.nn.passes import evaluation_mode
from cl_ext.nn.task_gate import (
    GateCode,
    TaskGate,
    principal_code,
    reconstruction_errors,
    relatedness,
    train_gate_code,
)
from cl_ext.plugins import ExpertGatePlugin, LwFPlugin
from cl_ext.streams import BatchedLoading

import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.core import SupervisedPlugin
from avalanche.training import Naive
from torch import Tensor, nn
from torch.nn import functional

from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
SMALL: dict[str, Any] = {"code_size": 3, "gate_epochs": 20, "gate_batch_size": 8, "gate_lr": 0.1}
TASKS, WIDTH = 3, 4


def subspaces(per_class: int, seed: int, mirrored: bool = False) -> tuple[Tensor, Tensor]:
    """Three tasks of two classes, each with values in four of twelve features of its own; two classes are opposite.

    With `mirrored` the last task is the first one again, under new labels.
    """
    generator = torch.Generator().manual_seed(seed)
    x, y = [], []
    for task in range(TASKS):
        place = 0 if mirrored and task == TASKS - 1 else task
        for sign in (0, 1):
            values = torch.zeros(per_class, TASKS * WIDTH)
            own = torch.randn(per_class, WIDTH, generator=generator)
            own[:, 0] = own[:, 0].abs() * (1 - 2 * sign) + (1 - 2 * sign)
            values[:, WIDTH * place : WIDTH * (place + 1)] = 2 * own
            x.append(values)
            y.append(torch.full((per_class,), 2 * task + sign))
    return torch.cat(x), torch.cat(y)


def stream(mirrored: bool = False) -> Any:
    train, test = (common.labelled(*subspaces(n, seed, mirrored)) for n, seed in ((40, 1), (20, 2)))
    return nc_benchmark(train, test, TASKS, task_labels=True, shuffle=False)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(TASKS * WIDTH, 16), nn.ReLU(), nn.Linear(16, 2 * TASKS))


def trained(
    options: dict[str, Any] | None = None, form: Any = "sigmoid", mirrored: bool = False, by_label: bool = False,
    plugins: list[Any] | None = None, adam: bool = False, make: Any = network, epochs: int = 3,
    after: Any = lambda runner: None,
) -> Naive:  # fmt: skip
    torch.manual_seed(0)
    model = experts(make(), form, by_label=by_label)
    rate = {"weight_decay": 0.05}
    optimizer = (
        torch.optim.Adam(model.parameters(), lr=0.01, **rate)
        if adam
        else torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, **rate)
    )
    own = ExpertGatePlugin(**(SMALL | (options or {})))
    runner = common.strategy(model, [own, *(plugins or [])], optimizer=optimizer, train_epochs=epochs)
    common.train(runner, stream(mirrored).train_stream, after=lambda: after(runner))
    return runner


# ---- E1: a sample's expert does not depend on the batch ----


def batchwise(gate: TaskGate, x: Tensor) -> Tensor:
    """Negative control: one expert for the batch, by its summed error, as in Avalanche."""
    return gate.errors(x).sum(0).argmin().expand(len(x))


@pytest.mark.parametrize("form", ["sigmoid", "linear"])
def test_routing_is_sample_by_sample(form: Any) -> None:
    model: Any = trained(form=form).model
    x, _ = subspaces(10, 3)
    whole = model.route(x)
    order = torch.randperm(len(x))
    assert torch.equal(model.route(x[order]), whole[order])
    assert torch.equal(torch.cat([model.route(x[i : i + 1]) for i in range(len(x))]), whole)
    mixed = model.eval()(x)
    alone = torch.cat([model(x[i : i + 1]) for i in range(len(x))])
    assert torch.allclose(mixed, alone, atol=1e-5)


def test_batchwise_gating_is_caught() -> None:
    model: Any = trained().model
    x, _ = subspaces(10, 3)
    alone = torch.cat([batchwise(model.gate, x[i : i + 1]) for i in range(len(x))])
    assert not torch.equal(batchwise(model.gate, x), alone)
    assert torch.equal(alone, model.gate(x))


# ---- E2: relatedness ----


def test_a_task_is_related_to_itself_by_one() -> None:
    errors = torch.tensor([0.3, 2.0, 5.5])
    assert torch.equal(relatedness(errors, errors), torch.ones(3))
    assert relatedness(torch.tensor(3.0), torch.tensor(2.0)).item() == pytest.approx(0.5)
    assert relatedness(torch.tensor(1.0), torch.tensor(2.0)).item() == pytest.approx(1.5)


def test_relatedness_is_measured_on_held_out_samples_of_the_new_task() -> None:
    """Recomputed from the published choice: no auto-encoder has seen the samples."""
    runner = trained({"validation": 0.25})
    model: Any = runner.model
    plugin: Any = runner.plugins[0]
    x, y = subspaces(40, 1)
    from cl_ext.nn.holdout import held_out

    own = x[y // 2 == 1]
    generator = torch.Generator().manual_seed(1)  # seed 0, experience 1
    aside = held_out(y[y // 2 == 1], 0.25, generator)
    assert len(aside) == 20
    features = model.gate.features(own[aside])
    errors = [reconstruction_errors(features, model.gate.code(k), "sigmoid").mean().item() for k in (0, 1)]
    assert plugin.history[0]["relatedness"] == pytest.approx(1 - (errors[0] - errors[1]) / errors[1], rel=1e-5)


def test_the_most_related_expert_is_the_source_and_the_threshold_decides() -> None:
    """The last task is the first again: related by nearly one, the middle one is not."""
    chosen = [trained({"threshold": threshold}, mirrored=True).plugins[0].history for threshold in (0.5, 1.0)]
    for choices, teaches in zip(chosen, (True, False), strict=True):
        assert choices[1]["expert"] == 0
        assert choices[1]["relatedness"] > 0.5
        assert choices[1]["teaches"] is teaches
        assert choices[0]["relatedness"] < 0.5
        assert not choices[0]["teaches"]


def test_the_new_expert_begins_as_a_copy_of_its_source() -> None:
    seen: list[bool] = []

    class Look(SupervisedPlugin):
        def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
            model = strategy.model
            if model.begun == TASKS and not seen:
                pairs = zip(model.experts[-1].parameters(), model.experts[0].parameters(), strict=True)
                seen.append(all(torch.equal(a, b) for a, b in pairs))

    runner = trained(mirrored=True, plugins=[Look()])
    assert seen == [True]
    assert not torch.equal(runner.model.experts[2][0].weight, runner.model.experts[0][0].weight)


# ---- E3: the linear gate finds the principal subspace ----


@pytest.mark.parametrize("code_size", [1, 2])
def test_a_linear_auto_encoder_reaches_the_error_of_pca(code_size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 6, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 2, 1.5, 1, 0.5, 0.2])
    x = x @ torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64)).Q + 0.3
    code = train_gate_code(x, code_size, "linear", 1.0, 0.0, 1000, 60, generator)
    centred = x - x.mean(0)
    optimum = torch.linalg.svdvals(centred)[code_size:].square().sum().item() / len(x)
    found = reconstruction_errors(x, code, "linear").mean().item()
    assert optimum - 1e-9 <= found <= 1.001 * optimum


@pytest.mark.parametrize(("samples", "code_size"), [(60, 2), (60, 6), (60, 9), (4, 3), (4, 5), (1, 2)])
def test_the_closed_form_is_the_error_of_pca(samples: int, code_size: int) -> None:
    """More samples than features, and fewer; codes that samples or features do not fill."""
    x = torch.randn(samples, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.3
    code = train_gate_code(x, code_size, "pca", 0.1, 0.0, 1, 8, torch.Generator())
    assert all(torch.equal(a, b) for a, b in zip(code, principal_code(x, code_size), strict=True))
    optimum = torch.linalg.svdvals(x - x.mean(0))[code_size:].square().sum().item() / samples
    found = reconstruction_errors(x, code, "pca").mean().item()
    assert found == pytest.approx(optimum, rel=1e-8, abs=1e-10)
    assert code.weight.shape == (code_size, 6)


def test_the_sigmoid_forms_equations() -> None:
    generator = torch.Generator().manual_seed(0)
    code = GateCode.drawn(5, 3, generator, torch.zeros(1))
    x = torch.rand(4, 5, generator=generator)
    for n in range(4):
        hidden = [max(0.0, sum(float(code.weight[c, d] * x[n, d]) for d in range(5))) for c in range(3)]
        found = [1 / (1 + math.exp(-sum(float(code.decoder[d, c]) * hidden[c] for c in range(3)))) for d in range(5)]
        error = sum((float(x[n, d]) - found[d]) ** 2 for d in range(5))
        assert reconstruction_errors(x, code, "sigmoid")[n].item() == pytest.approx(error, rel=1e-5)


def test_the_first_weights_are_sparse() -> None:
    code = GateCode.drawn(40, 20, torch.Generator().manual_seed(0), torch.zeros(1))
    assert code.weight.ne(0).sum(1).tolist() == [15] * 20
    assert code.decoder.ne(0).sum(1).tolist() == [15] * 40
    assert code.bias.abs().sum() == code.decoder_bias.abs().sum() == 0


def test_weight_decay_spares_the_biases() -> None:
    """Features of 0 in the linear form: the loss has no gradient at biases of 0, weights only decay."""
    codes = [
        train_gate_code(torch.zeros(4, 6), 2, "linear", 0.1, decay, 3, 4, torch.Generator().manual_seed(0))
        for decay in (0.0, 0.1)
    ]
    assert codes[0].bias.abs().sum() == codes[1].bias.abs().sum() == codes[1].decoder_bias.abs().sum() == 0
    assert codes[1].weight.abs().sum() < codes[0].weight.abs().sum()


# ---- E4: earlier experts are exact ----


@pytest.mark.parametrize("adam", [False, True])
@pytest.mark.parametrize("threshold", [-1000.0, 1.0])
def test_earlier_experts_and_their_answers_are_exact(adam: bool, threshold: float) -> None:
    """Under weight decay, with batch norm, with distillation and without."""

    def normed() -> nn.Module:
        return nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 6))

    x, _ = subspaces(5, 3)
    states: list[dict[str, Tensor]] = []
    answers: list[Tensor] = []

    def look(runner: Naive) -> None:
        model: Any = runner.model
        states.append(common.weights(model))
        with evaluation_mode(model), torch.no_grad():
            answers.append(model.experts[0](x))

    runner = trained({"threshold": threshold}, adam=adam, make=normed, after=look)
    assert [choice["teaches"] for choice in runner.plugins[0].history] == [threshold < 0] * 2
    for k in range(TASKS - 1):
        names = [name for name in states[k] if name.startswith((f"experts.{k}.", f"gate.codes.{k}|"))]
        assert len(names) > 8
        assert all(torch.equal(states[k][name], states[-1][name]) for name in names)
    assert torch.equal(answers[0], answers[-1])


# ---- E5, E7: the gate ----


@pytest.mark.parametrize("form", ["sigmoid", "linear", "pca"])
def test_tasks_in_disjoint_subspaces_are_told_apart(form: Any) -> None:
    model: Any = trained({"gate_epochs": 60, "code_size": 8}, form=form).model
    x, y = subspaces(20, 2)
    assert torch.equal(model.route(x), y // 2)


def test_the_oracle_gate_is_at_least_as_good() -> None:
    """With classes that no two tasks share a wrong expert is a wrong class."""
    model: Any = trained({"gate_epochs": 1, "code_size": 1}).model
    x, y = subspaces(40, 2)
    with evaluation_mode(model), torch.no_grad():
        route = model.route(x)
        gated = model(x).argmax(1) == y
        oracle = model.answers(x, y // 2).argmax(1) == y
    assert not torch.equal(route, y // 2)  # a poor gate, or there is nothing to see
    assert not gated[route != y // 2].any()
    assert torch.equal(gated[route == y // 2], oracle[route == y // 2])
    assert oracle.float().mean() > gated.float().mean()


def test_labels_choose_where_they_are_to() -> None:
    """The network that is routed by label answers as the gated one does with the right experts."""
    gated: Any = trained().model
    labelled: Any = trained(by_label=True).model
    x, y = subspaces(5, 2)
    labelled.eval()
    assert torch.allclose(labelled(x, y // 2), gated.eval().answers(x, y // 2), atol=1e-6)
    assert torch.equal(labelled.route(x, 1), torch.ones(len(x), dtype=torch.int64))
    assert torch.isneginf(labelled(x, 8)).all()
    with pytest.raises(ValueError, match="the samples have none"):
        labelled(x)


def test_the_argmax_is_a_class_of_the_expert_and_other_logits_keep_their_order() -> None:
    model: Any = trained().model
    x, _ = subspaces(5, 2)
    chosen = torch.ones(len(x), dtype=torch.int64)
    model.eval()
    raw, found = model.experts[1](x), model.answers(x, chosen)
    assert torch.equal(found[:, 2:4], raw[:, 2:4])
    assert set(found.argmax(1).tolist()) <= {2, 3}
    others = [0, 1, 4, 5]
    assert torch.isfinite(found).all()
    assert torch.equal(found[:, others].argsort(1), raw[:, others].argsort(1))
    assert (found[:, others].amax(1) < found[:, 2:4].amin(1)).all()


def test_classes_that_no_expert_has_are_minus_infinity() -> None:
    torch.manual_seed(0)
    model = experts(network())
    runner = common.strategy(model, [ExpertGatePlugin(**SMALL)])
    x, _ = subspaces(3, 2)
    assert torch.equal(model.eval()(x), model.experts[0](x))  # before any training
    common.train(runner, stream().train_stream[:1])
    logits = model.eval()(x)
    assert torch.isneginf(logits[:, 2:]).all()
    assert torch.equal(logits[:, :2], model.experts[0](x)[:, :2])


# ---- E6: the distillation is real ----


class Penalty(SupervisedPlugin):
    """Looks, at each step, at the distillation, its gradient and the teacher."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[float] = []
        self.divergences: list[float] = []
        self.teachers: list[dict[str, Tensor]] = []

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        plugin = next(each for each in strategy.plugins if isinstance(each, ExpertGatePlugin))
        if plugin.teacher is None:
            return
        own = functional.cross_entropy(strategy.mb_output, strategy.mb_y)
        self.values.append(float(strategy.loss.detach() - own.detach()))
        classes = strategy.model.classes(plugin.history[-1]["expert"])
        with torch.no_grad():
            z, z_t = strategy.mb_output[:, classes] / 2, plugin.teacher.network(strategy.mb_x)[:, classes] / 2
            self.divergences.append(float(functional.kl_div(z.log_softmax(1), z_t.softmax(1), reduction="batchmean")))
        self.teachers.append({name: t.clone() for name, t in plugin.teacher.network.state_dict().items()})


def test_the_distillation_is_there_and_its_teacher_stands_still() -> None:
    watch = Penalty()
    runner = trained({"threshold": -1000.0}, plugins=[watch])
    steps = math.ceil(80 / 7) * 3 * (TASKS - 1)
    assert len(watch.values) == steps
    assert min(watch.values) > 0
    half = steps // 2
    for part in (watch.divergences[:half], watch.divergences[half:]):
        assert part[0] == pytest.approx(0.0, abs=1e-6)  # a copy of its teacher
        assert max(part) > 1e-4
    source = runner.plugins[0].history[1]["expert"]
    kept = runner.model.experts[source].state_dict()
    assert all(torch.equal(watch.teachers[-1][name], kept[name]) for name in kept)
    assert runner.plugins[0].teacher is None


def test_the_distillation_is_that_of_the_teachers_own_classes() -> None:
    """A step's loss, written out with a softmax at T = 2 over the source's two classes."""
    expected: list[float] = []
    found: list[float] = []

    class Look(SupervisedPlugin):
        def before_backward(self, strategy: Any, **kwargs: Any) -> None:
            plugin = strategy.plugins[0]
            if plugin.teacher is not None:
                classes = strategy.model.classes(plugin.history[-1]["expert"])
                source = copy.deepcopy(strategy.model.experts[plugin.history[-1]["expert"]]).eval()
                with torch.no_grad():
                    z, z_t = strategy.mb_output[:, classes], source(strategy.mb_x)[:, classes]
                    kd = -((z_t / 2).softmax(1) * (z / 2).log_softmax(1)).sum(1).mean()
                    own = functional.cross_entropy(strategy.mb_output, strategy.mb_y)
                expected.append(float(own + 3.0 * kd))
                found.append(float(strategy.loss.detach()))

    trained({"threshold": -1000.0, "lwf_lambda": 3.0}, plugins=[Look()])
    assert len(found) > 10
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_fresh_lwf_plugin_an_experience_is_caught() -> None:
    """Negative control: Avalanche's way, a new plugin each time, which has no teacher and adds nothing."""
    runner = common.strategy(network(), [])
    for number, each in enumerate(stream().train_stream):
        runner.plugins[:] = [plugin for plugin in runner.plugins if not isinstance(plugin, LwFPlugin)]
        runner.plugins.insert(0, LwFPlugin(1.0))
        torch.manual_seed(number)
        runner.train(each, eval_streams=[])
        assert runner.plugins[0].teacher is None


def test_remembered_and_computed_teachers_agree() -> None:
    """With the data path the teacher answers once an experience; the weights agree with asking it at each step."""
    models = []
    for more in ([], [_Forgetful()]):
        plugins = [BatchedLoading(seed=0), *more]
        models.append(trained({"threshold": -1000.0}, plugins=plugins, epochs=1).model)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


class _Forgetful(SupervisedPlugin):
    """Hides the loader's kind, so that the teacher runs beside each step."""

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        loader = strategy.dataloader
        strategy.dataloader = list(loader)


# ---- the network and the plugin ----


def test_one_experience_equals_plain_training() -> None:
    plain: Any = network
    torch.manual_seed(0)
    model = experts(plain())
    torch.manual_seed(0)
    own = plain()
    for each, plugins in ((model, [ExpertGatePlugin(**SMALL)]), (own, [])):
        runner = common.strategy(each, plugins)
        common.train(runner, stream().train_stream[:1])
    for a, b in zip(model.experts[0].parameters(), own.parameters(), strict=True):
        assert torch.equal(a, b)


def test_evaluation_makes_nothing() -> None:
    def evaluate(runner: Naive) -> None:
        runner.eval(stream().test_stream)

    plain, evaluated = trained(), trained(after=evaluate)
    assert common.same(common.weights(plain.model), common.weights(evaluated.model))


@pytest.mark.parametrize("by_label", [False, True])
def test_a_loaded_network_answers_for_every_task(by_label: bool) -> None:
    saved: Any = trained(by_label=by_label).model
    torch.manual_seed(3)
    fresh: ExpertNetwork = experts(network(), by_label=by_label)
    fresh.load_state_dict(saved.state_dict())
    x, y = subspaces(5, 2)
    labels = y // 2 if by_label else None
    assert torch.equal(fresh.eval()(x, labels), saved.eval()(x, labels))
    assert fresh.tasks == saved.tasks == [0, 1, 2]


def test_an_extractor_is_frozen_and_gives_the_gate_its_features() -> None:
    torch.manual_seed(0)
    extractor = nn.Sequential(nn.Linear(12, 5), nn.BatchNorm1d(5), nn.ReLU())
    model = experts(network(), extractor=extractor)
    before = {name: t.clone() for name, t in model.extractor.state_dict().items()}
    runner = common.strategy(model, [ExpertGatePlugin(**SMALL)])
    common.train(runner, stream().train_stream)
    assert model.gate.code(0).weight.shape == (3, 5)
    assert all(torch.equal(before[name], t) for name, t in model.extractor.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.extractor.parameters())


def test_features_are_standardised_by_the_first_task() -> None:
    gate = TaskGate("linear")
    x = torch.randn(50, 4) * 3 + 2
    gate.fit_scale(x)
    z = gate.features(x)
    assert float(z.mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(z.std(correction=0)) == pytest.approx(1.0, abs=1e-6)
    gate.fit_scale(torch.full((3, 4), 7.0))
    assert torch.equal(gate.features(torch.full((2, 4), 7.0)), torch.zeros(2, 4))
    first: Any = trained().model.gate.scale
    assert torch.equal(first, trained(mirrored=True).model.gate.scale)


def test_its_bytes_are_the_auto_encoders() -> None:
    """The experts are parameters of the network, and counted there."""
    runner = trained()
    model: Any = runner.model
    assert runner.plugins[0].extra_bytes() == sum(t.nbytes for t in model.gate.buffers()) > 0


def test_refusals_are_one_sentence() -> None:
    with pytest.raises(TypeError, match="asks for no task label; this Growing has a IncrementalClassifier at 'head'"):
        experts(common.Growing())
    with pytest.raises(ValueError, match="form must be one of 'sigmoid', 'linear', 'pca', got 'deep'"):
        experts(network(), "deep")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="needs a network of experts"):
        common.run([ExpertGatePlugin(**SMALL)])
    with pytest.raises(
        ValueError, match=r"each experience needs one of its own; this one has \[0\], earlier ones \[0\]"
    ):
        common.run([ExpertGatePlugin(**SMALL)], lambda: experts(common.mlp(), by_label=True))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"threshold": 1.5}, ValueError, r"ExpertGatePlugin: threshold must be in .*, 1\], got 1.5"),
        ({"lwf_lambda": -1.0}, ValueError, r"lwf_lambda must be in \[0, inf\), got -1.0"),
        ({"temperature": 0.0}, ValueError, r"temperature must be in \(0, inf\), got 0.0"),
        ({"code_size": 0}, ValueError, "code_size must be an integer >= 1, got 0"),
        ({"gate_epochs": 1.5}, TypeError, "gate_epochs must be an integer, got 1.5"),
        ({"gate_lr": -0.1}, ValueError, r"gate_lr must be in \(0, inf\), got -0.1"),
        ({"gate_batch_size": 0}, ValueError, "gate_batch_size must be an integer >= 1, got 0"),
        ({"gate_weight_decay": -1.0}, ValueError, r"gate_weight_decay must be in \[0, inf\), got -1.0"),
        ({"validation": 0.0}, ValueError, r"validation must be in \(0, 0.9\], got 0.0"),
        ({"seed": -1}, ValueError, "seed must be an integer >= 0, got -1"),
    ],
)
def test_bad_hyper_parameters(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ExpertGatePlugin(**arguments)
