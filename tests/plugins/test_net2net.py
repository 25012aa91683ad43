"""Net2Net: growth keeps the function, copies are alike until noise tells them apart, an identity layer is one."""

import copy
from typing import Any

import cl_ext  # noqa: F401
from cl_ext.models.growable import Body, growable
from cl_ext.models.networks import BasicBlock, Network, cnn_features, mlp_features, resnet18_features
from cl_ext.nn.net2net import (
    deepen,
    draw_mapping,
    identity_layer,
    identity_norm,
    multiplicities,
    place_behind,
    widen,
)
from cl_ext.plugins import Net2NetPlugin
from cl_ext.plugins.net2net import channel_sums

import pytest
import torch
from avalanche.models import IncrementalClassifier
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.plugins import common

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
each_type = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def mlp() -> nn.Module:
    return Network(mlp_features(6, (5, 4), bias=True), nn.Linear(4, 3))


def cnn() -> nn.Module:
    return Network(cnn_features(2, 8, 3), nn.Linear(128, 3))


def normed_cnn() -> nn.Module:
    """Convolutions with batch norm, pooling, and a flattening into a linear layer with batch norm."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(),
        nn.Linear(6 * 16, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3),
    )  # fmt: skip


def resnet() -> nn.Module:
    return Network(resnet18_features(2, 2), nn.Linear(16, 3))


NETWORKS = [mlp, cnn, normed_cnn, resnet]
each_network = pytest.mark.parametrize("network", NETWORKS)


def samples(network: Any, count: int = 9) -> Tensor:
    shape = (6,) if network is mlp else (2, 8, 8)
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(5))


def made(network: Any, dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
    """A network with batch-norm statistics and affine parameters that are not their first ones, and samples."""
    torch.manual_seed(0)
    model, x = network().to(dtype), samples(network).to(dtype)
    for _ in range(3):
        model(x + torch.randn_like(x))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return model.eval(), x


def widened(model: nn.Module, more: int = 2, noise: float = 0.0) -> nn.Module:
    grown, generator = copy.deepcopy(model), torch.Generator().manual_seed(1)
    for group in Body(grown).groups:
        widen(group, draw_mapping(group.units, group.units + more, generator), noise, generator)
    return grown


def deepened(model: nn.Module, x: Tensor) -> nn.Module:
    """An identity behind every stage, with the statistics of x (in the model's own mode) where there is batch norm."""
    grown = copy.deepcopy(model)
    for label, name in enumerate([stage.name for stage in Body(grown).stages], start=1):
        body = Body(grown)
        stage = next(stage for stage in body.stages if stage.name == name)
        statistics = None
        if stage.norm is not None:
            seen: list[Tensor] = []
            place = body.root.get_submodule(place_behind(stage)[0])
            with place.register_forward_hook(lambda _, inputs, output, seen=seen: seen.append(output.detach())):
                copy.deepcopy(grown)(x)
                grown_state = copy.deepcopy(grown.state_dict())
                grown(x)
                grown.load_state_dict(grown_state)
            total, squares, count = channel_sums(seen[-1])
            statistics = (total / count).to(x), (squares / count - (total / count).square()).to(x)
        deepen(body.root, stage, label, statistics=statistics)
    return grown


# ---- G1: the function stays ----


@each_network
@each_type
@pytest.mark.parametrize("training", [False, True])
def test_a_wider_network_computes_the_same(network: Any, dtype: torch.dtype, training: bool) -> None:
    model, x = made(network, dtype)
    grown = widened(model)
    assert all(g.units == 2 + o.units for g, o in zip(Body(grown).groups, Body(model).groups, strict=True))
    model.train(training)
    grown.train(training)
    assert torch.allclose(model(x), grown(x), atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("network", [mlp, cnn, normed_cnn])
@each_type
@pytest.mark.parametrize("training", [False, True])
def test_a_deeper_network_computes_the_same(network: Any, dtype: torch.dtype, training: bool) -> None:
    model, x = made(network, dtype)
    model.train(training)
    grown = deepened(model, x)
    assert len(Body(grown).stages) == 2 * len(Body(model).stages)
    assert torch.allclose(model(x), grown(x), atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 7), st.integers(1, 3), st.integers(0, 1000))
def test_any_sizes_and_any_mapping(n: int, readers: int, more: int, block: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    side = {1: 1, 2: 2, 3: 3}[block]
    model = nn.Sequential(
        nn.Conv2d(2, n, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(side), nn.Flatten(), nn.Linear(n * side * side, readers)
    ).double()
    x = torch.randn(3, 2, 6, 6, generator=generator, dtype=torch.float64)
    before = model(x)
    (group,) = Body(model).groups
    widen(group, draw_mapping(n, n + more, generator))
    assert torch.allclose(before, model(x), atol=1e-10)


def test_shared_readers_and_added_branches_get_one_mapping() -> None:
    """In the slim ResNet a stage's channels are those of every block that adds to them; all consumers follow."""
    model = resnet()
    groups = Body(model).groups
    blocks = [module for module in model.features if isinstance(module, BasicBlock)]
    stream = next(group for group in groups if group.name == "0")
    assert stream.makers == (model.features[0], blocks[0].conv2, blocks[1].conv2)
    assert [reader for reader, _ in stream.readers] == [
        blocks[0].conv1, blocks[1].conv1, blocks[2].conv1, blocks[2].shortcut[0]
    ]  # fmt: skip
    made_by = [maker for group in groups for maker in group.makers]
    assert len(made_by) == len(set(made_by)) == sum(isinstance(module, nn.Conv2d) for module in model.modules())


# ---- G2: what reads the copies adds up to what read the unit ----


@each_network
def test_the_columns_of_copies_add_up(network: Any) -> None:
    model, _ = made(network, torch.float64)
    grown = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(3)
    groups, old = Body(grown).groups, Body(copy.deepcopy(model)).groups
    for group, before in zip(groups, old, strict=True):
        n = group.units
        g = draw_mapping(n, 2 * n + 1, generator)
        assert g[:n].tolist() == list(range(n))
        weights = [(reader.weight.clone(), block) for reader, block in before.readers]
        fresh = copy.deepcopy(grown)
        target = next(each for each in Body(fresh).groups if each.name == group.name)
        widen(target, g)
        for (reader, block), (weight, _) in zip(target.readers, weights, strict=True):
            columns = reader.weight.unflatten(1, (len(g), block)) if block > 1 else reader.weight.unsqueeze(2)
            summed = torch.zeros_like(columns[:, :n]).index_add(1, g, columns)
            assert torch.allclose(summed.flatten(1), weight.flatten(1), atol=1e-12)


def test_multiplicities_count_the_copies() -> None:
    assert multiplicities(torch.tensor([0, 1, 2, 1, 1]), 3).tolist() == [1, 3, 1, 3, 3]
    with pytest.raises(ValueError, match="has at least its 4 units; 3 are fewer"):
        draw_mapping(4, 3, torch.Generator())


# ---- G3: symmetry, and what breaks it ----


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_copies_get_equal_gradients_unless_there_is_noise(noise: float) -> None:
    model, x = made(mlp, torch.float64)
    n = Body(model).groups[0].units
    grown, generator = copy.deepcopy(model), torch.Generator().manual_seed(1)
    g = torch.tensor([*range(n), 2, 2])
    first = Body(grown).groups[0]
    widen(first, g, noise, generator)
    rows = first.makers[0].weight
    assert torch.equal(rows[:n], Body(model).groups[0].makers[0].weight)
    nn.functional.cross_entropy(grown(x), torch.arange(len(x)) % 3).backward()
    ((reader, _),) = first.readers
    gradient = torch.cat([rows.grad, first.makers[0].bias.grad[:, None], reader.weight.grad.T], dim=1)
    alike = [torch.allclose(gradient[2], gradient[n + i], rtol=0, atol=1e-14) for i in range(2)]
    assert alike == [noise == 0.0] * 2
    assert torch.equal(rows[2], rows[n]) == (noise == 0.0)
    assert gradient[2].abs().max() > 0


# ---- G4: the identity kernel ----


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_an_identity_convolution_gives_a_delta_image_back(kernel: int) -> None:
    stage = Body(cnn()).stages[0]
    image = torch.zeros(1, 3, 7, 7)
    image[0, 1, 2, 4] = 1.0
    layer = identity_layer(stage, kernel)
    assert torch.equal(layer(image), image)
    corner = torch.randn(2, 3, 7, 7)
    assert torch.equal(layer(corner), corner)


def test_an_even_kernel_has_no_centre() -> None:
    with pytest.raises(ValueError, match="odd side, not 4"):
        identity_layer(Body(cnn()).stages[0], 4)


def test_an_off_centre_kernel_is_caught() -> None:
    """Negative control: the centre by a 1-based index, as in a public port, shifts the image."""
    layer = identity_layer(Body(cnn()).stages[0], 3)
    with torch.no_grad():
        shifted = torch.zeros_like(layer.weight)
        shifted[:, :, 2, 2] = torch.eye(3)
        layer.weight.copy_(shifted)
    image = torch.zeros(1, 3, 7, 7)
    image[0, 1, 2, 4] = 1.0
    assert not torch.equal(layer(image), image)
    assert layer(image)[0, 1, 1, 3] == 1.0


def test_batch_norm_copied_for_the_last_channel_only_is_caught() -> None:
    """Negative control: a public port sets the last new channel's statistics and leaves the others as they begin."""
    model, x = made(normed_cnn, torch.float64)
    grown = copy.deepcopy(model)
    group = Body(grown).groups[0]
    g = torch.tensor([0, 1, 2, 3, 0, 1])
    widen(group, g)
    assert torch.allclose(model(x), grown(x), atol=1e-10)
    (norm,) = group.norms
    with torch.no_grad():
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            getattr(norm, name)[4] = value
    assert not torch.allclose(model(x), grown(x), atol=1e-3)


def test_an_identity_norm_gives_back_what_it_is_given() -> None:
    x = torch.randn(50, 4, dtype=torch.float64) * 3 + 1
    norm = identity_norm(nn.BatchNorm1d(4), x.mean(0), x.var(0, correction=0))
    assert torch.allclose(norm.train()(x), x, atol=1e-12)
    norm = identity_norm(nn.BatchNorm1d(4), x.mean(0), x.var(0, correction=0))
    other = torch.randn(20, 4, dtype=torch.float64)
    assert torch.allclose(norm.eval()(other), other, atol=1e-12)


# ---- G5: any order of growth ----


@pytest.mark.parametrize("network", [mlp, cnn, normed_cnn])
@each_type
def test_wider_deeper_wider(network: Any, dtype: torch.dtype) -> None:
    model, x = made(network, dtype)
    grown = widened(deepened(widened(model), x), more=3)
    assert torch.allclose(model(x), grown(x), atol=3 * TOLERANCE[dtype], rtol=3 * TOLERANCE[dtype])
    fresh = growable(network().to(dtype))
    fresh.load_state_dict(grown.state_dict())
    assert torch.equal(fresh.eval()(x), grown(x))
    again = widened(deepened(fresh, x), more=1)
    assert torch.allclose(model(x), again(x), atol=5 * TOLERANCE[dtype], rtol=5 * TOLERANCE[dtype])


# ---- G6: refusals ----


@pytest.mark.parametrize("activation", [nn.Sigmoid, nn.Tanh, nn.LeakyReLU, nn.GELU])
def test_deeper_refuses_an_activation_that_is_not_idempotent(activation: Any) -> None:
    model = nn.Sequential(nn.Linear(6, 5), activation(), nn.Linear(5, 3))
    with pytest.raises(TypeError, match=rf"f\(f\(x\)\) = f\(x\), such as ReLU; '1' is a {activation.__name__}"):
        deepen(model, Body(model).stages[0], 1)
    runner = common.strategy(nn.Sequential(nn.Linear(6, 16), activation(), nn.Linear(16, 8)), [Net2NetPlugin(deeper=1)])
    with pytest.raises(TypeError, match="such as ReLU"):
        runner.train(common.benchmark().train_stream[0])


def test_a_deeper_sigmoid_network_would_compute_something_else() -> None:
    """Why G6 refuses it: negative control."""
    x = torch.randn(4, 5)
    assert not torch.allclose(torch.sigmoid(torch.sigmoid(x)), torch.sigmoid(x))
    assert torch.equal(torch.relu(torch.relu(x)), torch.relu(x))


def test_networks_that_cannot_grow_are_one_sentence() -> None:
    with pytest.raises(TypeError, match=r"Net2Net takes an nn\.Sequential .* this is a Growing"):
        growable(common.Growing())
    with pytest.raises(TypeError, match="a chain takes those of one"):
        growable(nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)))
    runner = common.strategy(resnet(), [Net2NetPlugin(deeper=1)])
    with pytest.raises(TypeError, match="a chain"):
        runner.train(common.benchmark().train_stream[0])


# ---- the plugin ----


class _Watch:
    """Keeps the network's answers: before growth or after it, by its place in the list of plugins."""

    supports_distributed = False

    def __init__(self, x: Tensor, answers: list[Tensor]) -> None:
        self.x, self.answers = x, answers

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        strategy.model.eval()
        with torch.no_grad():
            self.answers.append(strategy.model(self.x))
        strategy.model.train()


@pytest.mark.parametrize("deeper", [0, 1])
def test_it_grows_between_experiences_and_keeps_the_function(deeper: int) -> None:
    torch.manual_seed(0)
    before: list[Tensor] = []
    after: list[Tensor] = []
    x = torch.randn(5, common.FEATURES)
    plugin = Net2NetPlugin(wider=0.5, deeper=deeper, noise=0.0)
    runner = common.strategy(common.normed(), [_Watch(x, before), plugin, _Watch(x, after)])
    optimizer = runner.optimizer
    common.train(runner, common.benchmark().train_stream)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(before, after, strict=True))
    groups = Body(runner.model).groups
    assert groups[0].units == 16 + 3 * 8
    assert len(groups) == 1 + 3 * deeper
    assert runner.optimizer is optimizer
    trained = {id(parameter) for parameter in runner.optimizer.param_groups[0]["params"]}
    assert trained == {id(parameter) for parameter in runner.model.parameters()}


def test_the_learning_rate_is_lowered_once() -> None:
    """In every step from the first growth on; between steps the optimizer has its own."""
    model, steps = common.mlp(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    optimizer.register_step_pre_hook(lambda *_: steps.append(optimizer.param_groups[0]["lr"]))
    runner = common.strategy(model, [Net2NetPlugin(lr_factor=0.1)], optimizer=optimizer)
    common.train(runner, common.benchmark().train_stream)
    each = len(steps) // common.EXPERIENCES
    assert steps == [0.05] * each + [0.05 * 0.1] * (3 * each)
    assert optimizer.param_groups[0]["lr"] == 0.05


def test_a_network_that_never_grows_keeps_its_learning_rate() -> None:
    plain, ours = common.run([]), common.run([Net2NetPlugin(wider=0.0, lr_factor=0.1)])
    assert common.same(common.weights(plain.model), common.weights(ours.model))


def test_growth_forgets_the_optimizers_state() -> None:
    seen = []

    class Look:
        supports_distributed = False

        def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            seen.append(len(strategy.optimizer.state))

    common.run([Net2NetPlugin(), Look()])
    assert seen == [0] * common.EXPERIENCES


def test_a_growing_head_follows() -> None:
    torch.manual_seed(0)
    model = Network(mlp_features(common.FEATURES, (8,), bias=True), IncrementalClassifier(8, masking=False))
    runner = common.strategy(model, [Net2NetPlugin(wider=0.5)])
    common.train(runner, common.benchmark().train_stream)
    assert model.classifier.classifier.weight.shape == (common.CLASSES, 8 + 3 * 4)


def test_a_grown_network_answers_after_loading(tmp_path: Any) -> None:
    runner = common.run([Net2NetPlugin(deeper=1)], common.normed)
    torch.save(runner.model.state_dict(), tmp_path / "grown.pt")
    fresh = growable(common.normed())
    state = torch.get_rng_state()
    fresh.load_state_dict(torch.load(tmp_path / "grown.pt", weights_only=True))
    assert torch.equal(state, torch.get_rng_state())
    x = torch.randn(7, common.FEATURES)
    assert torch.equal(fresh.eval()(x), runner.model.eval()(x))
    assert sum(p.numel() for p in fresh.parameters()) == sum(p.numel() for p in runner.model.parameters())


def test_noise_and_copies_come_from_its_own_seed() -> None:
    one, two, other = (common.run([Net2NetPlugin(seed=seed)]).model for seed in (1, 1, 2))
    assert common.same(common.weights(one), common.weights(two))
    assert not common.same(common.weights(one), common.weights(other))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"wider": -0.1}, ValueError, r"Net2NetPlugin: wider must be in \[0, inf\), got -0.1"),
        ({"deeper": 0.5}, TypeError, "deeper must be an integer, got 0.5"),
        ({"noise": -1.0}, ValueError, r"noise must be in \[0, inf\), got -1.0"),
        ({"lr_factor": 0.0}, ValueError, r"lr_factor must be in \(0, inf\), got 0.0"),
        ({"seed": -1}, ValueError, "seed must be an integer >= 0, got -1"),
    ],
)
def test_bad_hyper_parameters(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Net2NetPlugin(**arguments)
