"""Local MAS against autograd layer by layer, with each layer's input held fixed, in float64."""

from collections.abc import Callable
from typing import Any

from cl_ext.nn.hebbian import local_sums
from cl_ext.nn.local_layers import local_layers
from cl_ext.plugins import LocalMASPlugin, MASPlugin

import pytest
import torch
from avalanche.models import IncrementalClassifier
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
DOUBLE = torch.float64
N, D, H, K = 19, 4, 6, 5
Named = dict[str, Tensor]
Stage = tuple[str, Callable[[Tensor], Tensor]]


@pytest.fixture
def x() -> Tensor:
    """Inputs of both signs."""
    return torch.randn(N, D, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)


def _omega(model: nn.Module, x: Tensor, classes: Any = None, **options: Any) -> Named:
    data = TensorDataset(x, torch.zeros(len(x), dtype=torch.long))
    return LocalMASPlugin(**{"batch_size": 7} | options).new_importance(model, data, classes)


def _close(a: Named, b: Named, rtol: float = 1e-10) -> bool:
    return all(torch.allclose(a[name], b[name], rtol=rtol, atol=1e-14) for name in b)


def _by_autograd(model: nn.Module, x: Tensor, stages: list[Stage]) -> Named:
    """The definition, one sample and one layer at a time: `|d |h|^2 / d theta|`, h by the stage's own function.

    Args:
        model: where the parameters are.
        x: inputs.
        stages: (prefix of the parameters, from the detached input to h), in order; the next stage's input is h, unless
            the function has an attribute `output`.
    """
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for y in x.split(1):
        y = y.detach()
        for prefix, function in stages:
            own = {name: p for name, p in model.named_parameters() if name.startswith(prefix)}
            h = function(y)
            gradients = torch.autograd.grad(h.square().sum(), list(own.values()))
            for name, g in zip(own, gradients, strict=True):
                total[name] += g.abs() / len(x)
            y = getattr(function, "output", lambda value: value)(h).detach()
    return total


class Stepped:
    """A stage whose output is not what its function F is of: pooling or a reshape follows."""

    def __init__(self, function: Callable[[Tensor], Tensor], output: Callable[[Tensor], Tensor]) -> None:
        self.function, self.output = function, output

    def __call__(self, y: Tensor) -> Tensor:
        return self.function(y)


def _mlp(**options: Any) -> tuple[nn.Module, list[Stage]]:
    torch.manual_seed(0)
    layers = nn.Linear(D, H), nn.ReLU(**options), nn.Linear(H, H), nn.ReLU(**options), nn.Linear(H, K)
    model = nn.Sequential(*layers).double()
    stages = [("0.", lambda y: model[0](y).relu()), ("2.", lambda y: model[2](y).relu()), ("4.", model[4])]
    return model, stages


# ---- closed forms --------------------------------------------------------------------------------------------------
def test_a_relu_layer_is_the_product_of_activations() -> None:
    """`2 mean(y_i y_j)` on inputs >= 0, and `2 mean(y_i)` for the bias."""
    model, _ = _mlp()
    x = torch.rand(N, D, dtype=DOUBLE)
    one = model[0](x).relu().detach()
    two = model[2](one).relu().detach()
    omega = _omega(model, x)
    torch.testing.assert_close(omega["0.weight"], 2 * one.t() @ x / N, rtol=1e-12, atol=0)
    torch.testing.assert_close(omega["2.weight"], 2 * two.t() @ one / N, rtol=1e-12, atol=0)
    torch.testing.assert_close(omega["2.bias"], 2 * two.mean(0), rtol=1e-12, atol=0)


def test_the_layer_of_the_logits_is_linear(x: Tensor) -> None:
    """`2 mean(|f_i| |y_j|)`: global MAS, which on one linear layer is the same."""
    model = nn.Linear(D, K).double()
    f = model(x).detach().abs()
    omega = _omega(model, x)
    torch.testing.assert_close(omega["weight"], 2 * f.t() @ x.abs() / N, rtol=1e-12, atol=0)
    torch.testing.assert_close(omega["bias"], 2 * f.mean(0), rtol=1e-12, atol=0)
    assert _close(omega, MASPlugin().new_importance(model, TensorDataset(x, torch.zeros(N))))


def test_the_factor(x: Tensor) -> None:
    model, _ = _mlp()
    bare = _omega(model, x, local_factor=1.0)
    assert _close(_omega(model, x), {name: 2 * o for name, o in bare.items()})


@pytest.mark.parametrize("inplace", [False, True])
def test_an_mlp_equals_autograd(x: Tensor, inplace: bool) -> None:
    model, stages = _mlp(inplace=inplace)
    assert bool((x < 0).any())
    assert _close(_omega(model, x), _by_autograd(model, x, stages))


@pytest.mark.parametrize("order", ["relu first", "pool first"])
def test_a_convolution_equals_autograd(order: str) -> None:
    """Positions are summed before the absolute value; ReLU and max pooling commute."""
    torch.manual_seed(0)
    middle = [nn.ReLU(), nn.MaxPool2d(2)] if order == "relu first" else [nn.MaxPool2d(2), nn.ReLU()]
    layers = nn.Conv2d(2, 3, 3, padding=1), *middle, nn.Conv2d(3, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16, K)
    model, x = nn.Sequential(*layers).double(), torch.randn(9, 2, 6, 6, dtype=DOUBLE)
    stages: list[Stage] = [
        ("0.", Stepped(lambda y: model[0](y).relu(), nn.MaxPool2d(2))),
        ("3.", Stepped(lambda y: model[3](y).relu(), nn.Flatten())),
        ("6.", model[6]),
    ]
    omega = _omega(model, x)
    assert _close(omega, _by_autograd(model, x, stages))
    u, h = functional.unfold(x, 3, padding=1).abs(), model[0](x).relu().flatten(2)
    abs_first = (2 * torch.einsum("nis,njs->ij", h, u) / len(x)).detach().view_as(omega["0.weight"])
    assert bool((omega["0.weight"] <= abs_first * (1 + 1e-12)).all())
    assert not torch.allclose(omega["0.weight"], abs_first, rtol=0.05)


@pytest.mark.parametrize("dims", [1, 2])
def test_batch_norm_between_equals_autograd(dims: int) -> None:
    """It is part of the layer's function, by its running statistics, and a layer itself."""
    torch.manual_seed(0)
    if dims == 1:
        layers: list[nn.Module] = [nn.Linear(D, H), nn.BatchNorm1d(H), nn.ReLU(), nn.Dropout(0.4), nn.Linear(H, K)]
        x = torch.randn(N, D, dtype=DOUBLE)
    else:
        layers = [nn.Conv2d(2, H, 3, bias=False), nn.BatchNorm2d(H), nn.ReLU(), nn.Flatten(), nn.Linear(4 * H, K)]
        x = torch.randn(N, 2, 4, 4, dtype=DOUBLE)
    model = nn.Sequential(*layers).double()
    with torch.no_grad():
        model[1].weight.uniform_(-1, 2)
        model[1].bias.normal_()
    for _ in range(10):
        model(2 * x + 1)
    flags = [module.training for module in model.modules()]
    omega = _omega(model, x)
    assert flags == [module.training for module in model.modules()]
    model.eval()
    layer: list[Stage] = [("0.", lambda y: model[1](model[0](y)).relu())]
    norm: list[Stage] = [("1.", Stepped(lambda z: model[1](z).relu(), nn.Flatten())), ("4.", model[4])]
    expected = _by_autograd(model, x, layer) | {
        name: value for name, value in _by_autograd(model, model[0](x).detach(), norm).items() if name[0] != "0"
    }
    assert _close(omega, expected)


class Residual(nn.Module):
    """Two layers with a shortcut; ReLU as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Linear(D, H), nn.Linear(H, H), nn.Linear(H, K)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.one(x))
        return self.out(functional.relu(self.two(y) + y))


def test_a_sum_with_a_shortcut_leaves_the_layer_linear(x: Tensor) -> None:
    torch.manual_seed(0)
    model = Residual().double()
    layers = local_layers(model, dict(model.named_parameters()), x[:2], None)
    assert [layer.relu for layer in layers.values()] == [True, False, False]
    y = model.one(x).relu().detach()
    z = model.two(y).detach().abs()
    omega = _omega(model, x)
    torch.testing.assert_close(omega["two.weight"], 2 * z.t() @ y / N, rtol=1e-12, atol=0)
    out = model(x).detach().abs()
    torch.testing.assert_close(omega["out.weight"], 2 * out.t() @ (model.two(y) + y).relu() / N, rtol=1e-12, atol=0)


def test_an_output_read_before_and_after_its_relu_is_linear(x: Tensor) -> None:
    class PreActivation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.out = nn.Linear(D, H), nn.Linear(H, H), nn.Linear(H, K)

        def forward(self, x: Tensor) -> Tensor:
            z = self.one(x)
            return self.out(z + self.two(z.relu()))

    torch.manual_seed(0)
    model = PreActivation().double()
    z = model.one(x).detach().abs()
    torch.testing.assert_close(_omega(model, x)["one.weight"], 2 * z.t() @ x.abs() / N, rtol=1e-12, atol=0)


def test_tokens_sum_over_their_positions() -> None:
    torch.manual_seed(0)
    layers = nn.Linear(3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(20, K)
    model, x = nn.Sequential(*layers).double(), torch.randn(6, 5, 3, dtype=DOUBLE)
    stages: list[Stage] = [("0.", Stepped(lambda y: model[0](y).relu(), nn.Flatten())), ("3.", model[3])]
    assert _close(_omega(model, x), _by_autograd(model, x, stages))


# ---- symmetries ----------------------------------------------------------------------------------------------------
def test_batching_order_and_duplication_change_nothing(x: Tensor) -> None:
    model, _ = _mlp()
    whole = _omega(model, x, batch_size=N)
    for batch_size in (1, 7, 18):
        assert _close(_omega(model, x, batch_size=batch_size), whole)
    assert _close(_omega(model, x.flip(0)), whole)
    assert _close(_omega(model, torch.cat([x, x])), whole)


def test_labels_are_not_used(x: Tensor) -> None:
    model, _ = _mlp()
    plugin = LocalMASPlugin()
    one, other = (plugin.new_importance(model, TensorDataset(x, torch.randint(10**6, (N,)))) for _ in range(2))
    assert _close(one, other, rtol=0)


def test_permuting_hidden_units_permutes_the_importance(x: Tensor) -> None:
    model, _ = _mlp()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    moved, _ = _mlp()
    permute = {"0.weight": lambda w: w[order], "0.bias": lambda b: b[order], "2.weight": lambda w: w[:, order]}
    moved.load_state_dict({name: permute.get(name, lambda v: v)(v) for name, v in model.state_dict().items()})
    expected = {name: permute.get(name, lambda v: v)(o) for name, o in _omega(model, x).items()}
    assert _close(_omega(moved, x), expected)


def test_the_pass_leaves_no_trace(x: Tensor) -> None:
    model, _ = _mlp(inplace=True)
    before, state = common.weights(model), torch.get_rng_state()
    _omega(model, x)
    assert common.same(before, common.weights(model))
    assert torch.equal(state, torch.get_rng_state())
    assert not any(module._forward_hooks for module in model.modules())


# ---- negative controls ---------------------------------------------------------------------------------------------
def _without_relu(model: nn.Module, x: Tensor) -> Tensor:
    return 2 * model[0](x).abs().t() @ x.abs() / N


def _signed(model: nn.Module, x: Tensor) -> Tensor:
    return 2 * model[0](x).relu().t() @ x / N


def _of_means(model: nn.Module, x: Tensor) -> Tensor:
    return 2 * torch.outer(model[0](x).relu().mean(0), x.abs().mean(0))


def _squared(model: nn.Module, x: Tensor) -> Tensor:
    return 4 * model[0](x).relu().square().t() @ x.square() / N


@pytest.mark.parametrize("faulty", [_without_relu, _signed, _of_means, _squared])
def test_negative_control(faulty: Any, x: Tensor) -> None:
    model, stages = _mlp()
    ours = _omega(model, x)["0.weight"]
    torch.testing.assert_close(ours, _by_autograd(model, x, stages)["0.weight"])
    assert not torch.allclose(ours, faulty(model, x).detach(), rtol=0.05)


def test_it_is_not_global_mas(x: Tensor) -> None:
    model, _ = _mlp()
    whole = MASPlugin().new_importance(model, TensorDataset(x, torch.zeros(N)))
    local = _omega(model, x)
    assert _close({"4.weight": local["4.weight"]}, {"4.weight": whole["4.weight"]})
    assert not torch.allclose(local["0.weight"], whole["0.weight"], rtol=0.05)


# ---- outputs and heads ---------------------------------------------------------------------------------------------
def test_chosen_outputs(x: Tensor) -> None:
    model, _ = _mlp()
    whole, some = _omega(model, x), _omega(model, x, classes=[0, 3])
    expected = {name: o.clone() for name, o in whole.items()}
    for name in ("4.weight", "4.bias"):
        expected[name][[1, 2, 4]] = 0.0
    assert _close(some, expected)


def test_masked_units_do_not_enter(x: Tensor) -> None:
    """The head's own layer gives values for the units that are masked to -1000 after it."""
    torch.manual_seed(0)
    head = IncrementalClassifier(D, K).double()
    head.active_units[[0, 3]] = 1
    f = head.classifier(x).detach().abs()
    expected = 2 * f.t() @ x.abs() / N
    assert float(expected[[1, 2, 4]].min()) > 0.0
    expected[[1, 2, 4]] = 0.0
    for classes in (None, range(K), [0, 1, 3]):
        torch.testing.assert_close(_omega(head, x, classes)["classifier.weight"], expected)


def test_heads_of_other_tasks_do_not_enter() -> None:
    """In a batch of two tasks each head sees its own task's samples, and each trunk sample counts once."""
    torch.manual_seed(0)
    stream = common.benchmark("nc-tasks").train_stream
    runner = common.strategy(common.MultiHead(), [], train_epochs=1)
    common.train(runner, stream[:2])
    model = runner.model
    samples = [sample for e in stream[:2] for sample in e.dataset]
    x, y, t = (torch.stack([torch.as_tensor(sample[i]) for sample in samples]) for i in range(3))
    sums, n = local_sums(model, dict(model.named_parameters()), TensorDataset(x, y, t), batch_size=len(x))
    assert n == len(x)
    features = model.trunk(x).detach()
    torch.testing.assert_close(sums["trunk.0.weight"], 2 * features.t() @ x.abs(), msg="trunk", rtol=1e-4, atol=1e-4)
    for task, classes in ((0, [0, 1]), (1, [2, 3])):
        mine = t == task
        f = model(x[mine], t[mine]).detach()[:, classes].abs()
        expected = 2 * f.t() @ features[mine]
        found = sums[f"heads.classifiers.{task}.classifier.weight"]
        torch.testing.assert_close(found[classes], expected, rtol=1e-4, atol=1e-4)
        assert float(found.sum()) == pytest.approx(float(expected.sum()), rel=1e-4)


def test_logits_that_are_not_the_last_layers_own(x: Tensor) -> None:
    """Every output can be read then, but not some of them."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(D, K)

        def forward(self, x: Tensor) -> Tensor:
            return 3.0 * self.out(x)

    model = Scaled().double()
    f = model.out(x).detach().abs()
    torch.testing.assert_close(_omega(model, x)["out.weight"], 2 * f.t() @ x.abs() / N)
    torch.testing.assert_close(_omega(model, x, classes=range(K))["out.weight"], 2 * f.t() @ x.abs() / N)
    with pytest.raises(NotImplementedError, match="the logits are not the last layer's output"):
        _omega(model, x, classes=[0, 1])


def test_heads_can_be_left_out(x: Tensor) -> None:
    """The head is still known as the last layer: the hidden one before it keeps its ReLU and all its units."""
    model, _ = _mlp()
    omega, whole = _omega(model, x, classes=[0], heads="exclude"), _omega(model, x)
    assert omega.keys() == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert _close(omega, {name: whole[name] for name in omega})


# ---- what it can't do, and its wiring ------------------------------------------------------------------------------
class Twice(nn.Module):
    """One layer run twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.Linear(D, D), nn.Linear(D, K)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(self.layer(x).relu()).relu())


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, K)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.two(self.one(x).relu()).relu())


class FunctionalNorm(nn.Module):
    """Batch norm as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.out = nn.Linear(D, D), nn.Linear(D, K)

    def forward(self, x: Tensor) -> Tensor:
        z = self.one(x)
        return self.out(functional.batch_norm(z, torch.zeros(D).to(z), torch.ones(D).to(z)).relu())


class Recurrent(nn.Module):
    """A GRU over the features."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.GRU(1, 3, batch_first=True), nn.Linear(3, K)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x.unsqueeze(-1))[0][:, -1])


def _with(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(D, D), *layers, nn.Linear(D, K))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Twice, "a Linear runs twice in one forward pass"),
        (Tied, r"two\.weight is shared with another layer"),
        (Recurrent, "a GRU is not from one tensor to one tensor"),
        (FunctionalNorm, "followed by a batch norm that is no module, or by two"),
        (_with(nn.Tanh()), "a Linear is followed by tanh, which is not ReLU"),
        (_with(nn.GELU()), "a Linear is followed by gelu, which is not ReLU"),
        (_with(nn.LeakyReLU()), "a Linear is followed by leaky_relu"),
        (_with(nn.BatchNorm1d(D), nn.SiLU()), "a BatchNorm1d is followed by silu"),
        (_with(nn.BatchNorm1d(D), nn.BatchNorm1d(D), nn.ReLU()), "or by two"),
        (_with(nn.BatchNorm1d(D, track_running_stats=False)), "no running statistics"),
    ],
)
def test_networks_without_local_importances(make: Callable[[], nn.Module], message: str, x: Tensor) -> None:
    torch.manual_seed(0)
    model = make().double()
    with pytest.raises(NotImplementedError, match=f"{message}.*; use MASPlugin"):
        _omega(model, x)
    assert not any(module._forward_hooks for module in model.modules())


def test_what_it_cannot_use(x: Tensor) -> None:
    with pytest.raises(TypeError, match=r"Sequential must give logits of shape \(B, K\) with B = 2"):
        _omega(nn.Sequential(nn.Linear(D, 4), nn.Unflatten(1, (2, 2))).double(), x)
    with pytest.raises(ValueError, match="needs at least one sample, but the experience's dataset is empty"):
        _omega(nn.Linear(D, K).double(), x[:0])


def test_accumulation_and_update_are_those_of_mas() -> None:
    torch.manual_seed(0)
    model, stream = common.mlp(), common.benchmark().train_stream
    plugin = LocalMASPlugin()
    runner = common.strategy(model, [plugin], optimizer=torch.optim.SGD(model.parameters(), lr=0.0), train_epochs=1)
    for experience in stream[:2]:
        runner.train(experience)
    inputs = [torch.stack([sample[0] for sample in e.dataset]) for e in stream[:3]]
    plugin.update_importance(model, inputs[2])
    first, second = _omega(model, inputs[0]), _omega(model, torch.cat(inputs[1:]))
    assert _close(plugin.importances, {name: first[name] + second[name] for name in first}, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mas_lambda": -1.0}, ValueError, r"LocalMASPlugin: mas_lambda must be in \[0, inf\), got -1.0"),
        ({"local_factor": 0.0}, ValueError, r"LocalMASPlugin: local_factor must be in \(0, inf\), got 0.0"),
        ({"local_factor": "2"}, TypeError, "local_factor must be a number, got '2'"),
        ({"accumulate": "ema"}, ValueError, "LocalMASPlugin: accumulate must be one of 'sum', 'mean', got 'ema'"),
    ],
)
def test_bad_hyper_parameters(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LocalMASPlugin(**arguments)
