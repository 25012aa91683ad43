"""What architecture methods take for an ordinary network, and what they refuse: nothing may be dropped silently."""

from collections.abc import Callable
from typing import Any

from cl_ext.models import expandable, pathnet, progressive
from cl_ext.models.growable import Body
from cl_ext.models.ordinary import parts

import pytest
import torch
from avalanche.models import SimpleMLP
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

TAKERS: dict[str, Callable[[nn.Module], Any]] = {
    "expandable": expandable,
    "progressive": progressive,
    "pathnet": pathnet,
    "Net2Net": lambda model: Body(model).groups,
}


class Form(nn.Module):
    """`classifier(features(x))`, and what subclasses do besides."""

    def __init__(self, features: nn.Module | None = None, inputs: int = 8) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(6, 8), nn.ReLU()) if features is None else features
        self.classifier = nn.Linear(inputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class Between(Form):
    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(functional.relu(self.features(x)))


class Behind(Form):
    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x)).log_softmax(1)


class Skips(Form):
    def forward(self, x: Tensor) -> Tensor:
        h = self.features(x)
        return self.classifier(h + h)


class Twice(Form):
    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(self.features(x)))


class Asks(Form):
    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x if x.sum() > 0 else -x))


class Unflattens(Form):
    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x.view(-1, 2, 3)))


class Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def _squeezing() -> nn.Module:
    class Squeezes(Form):
        def forward(self, x: Tensor) -> Tensor:
            return self.classifier(self.features(x).squeeze())

    return Squeezes(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)), 4)


def _pooled(flat: Callable[[Tensor], Tensor]) -> nn.Module:
    class Flattens(Form):
        def forward(self, x: Tensor) -> Tensor:
            return self.classifier(flat(self.features(x)))

    return Flattens(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2)), 4 * 4)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (SimpleMLP(num_classes=3, input_size=6, drop_rate=0.0), (2, 3)),
        (Form(), (6,)),
        (_squeezing(), (1, 6, 6)),
        (_pooled(lambda h: h.view(h.size(0), -1)), (1, 6, 6)),
        (_pooled(lambda h: h.reshape(h.shape[0], -1)), (1, 6, 6)),
        (_pooled(lambda h: torch.flatten(h, 1)), (1, 6, 6)),
        (_pooled(lambda h: h.flatten(start_dim=1)), (1, 6, 6)),
    ],
)
def test_a_network_that_flattens_keeps_its_function(model: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(5, *shape)
    features, classifier = parts(model, "here")
    assert torch.equal(classifier(features(x)), model(x))
    made = expandable(model)
    made.heads.add(0, range(3))
    assert torch.equal(made(x, 0), model(x))


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Between(), "Between does more than .*: relu"),
        (Behind(), "runs features -> classifier|does more than .*: log_softmax"),
        (Skips(), "does more than .*: add"),
        (Twice(), "runs features -> features -> classifier"),
        (Asks(), "cannot be followed"),
        (Unflattens(), "does more than .*: view"),
        (Residual(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)), "Residual"),
    ],
)
def test_a_forward_that_does_more_is_refused(model: nn.Module, message: str, taker: str) -> None:
    with pytest.raises(TypeError, match=message):
        TAKERS[taker](model)


def _twice(module: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), module, nn.Linear(8, 8), module, nn.Linear(8, 3))


def _tied() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    model[2].weight = model[0].weight
    return model


def _pruned() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    prune.random_unstructured(model[0], "weight", 0.5)
    return model


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_twice(nn.Linear(8, 8)), "'1' and '3' share"),
        (_twice(nn.BatchNorm1d(8, affine=False)), "'1' and '3' share"),
        (_tied(), "'0' and '2' share"),
        (_pruned(), "'0' are made of others .*weight_orig"),
        (nn.Sequential(nn.utils.spectral_norm(nn.Linear(6, 8)), nn.Linear(8, 3)), "'0' are made of others"),
        (nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 8)), nn.Linear(8, 3)), "made of others"),
        (nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 3)), "'0' has no size yet"),
        (
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True), nn.Flatten(),
                          nn.Linear(64, 3)),
            "'1' is a InstanceNorm2d",
        ),
    ],
)  # fmt: skip
def test_layers_whose_tensors_are_not_their_own_are_refused(model: nn.Module, message: str, taker: str) -> None:
    with pytest.raises(TypeError, match=message):
        TAKERS[taker](model)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([nn.Conv2d(1, 4, 3), nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 8)], "'2' has 64 features, and '0' 4"),
        ([nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.BatchNorm1d(8)], "'3' is the second behind '0'"),
        ([Residual(nn.Linear(6, 6), nn.ReLU()), nn.Linear(6, 8)], "'0' is a Residual"),
    ],
)
def test_what_is_no_chain_of_units_is_refused(features: list[nn.Module], message: str) -> None:
    model = nn.Sequential(*features, nn.ReLU(), nn.Linear(8, 3))
    for taker in ("progressive", "pathnet", "Net2Net"):
        with pytest.raises(TypeError, match=message):
            TAKERS[taker](model)
    with pytest.raises(TypeError, match=message):
        _ = expandable(model).stages


@pytest.mark.parametrize("shared", [nn.ReLU(), nn.Dropout(0.0)])
def test_an_activation_that_stands_twice_acts_twice(shared: nn.Module) -> None:
    torch.manual_seed(0)
    model, x = _twice(shared), torch.randn(7, 6)
    one = pathnet(model, modules=1, active=1)
    for made, call in ((expandable(model), 0), (progressive(model), 0), (one, 0)):
        made.heads.add(call, range(3))
        made.eval()
    expected = model(x)
    assert torch.allclose(expandable(model).features(x), model[:-1](x))
    column = progressive(model).column(0)
    assert torch.equal(column.hidden(x, [])[-1], model[:-1](x))
    assert torch.allclose(model[-1](one.scheme.read(one.features, x, 0)), expected)


def test_the_negative_control_loses_the_second_activation() -> None:
    """`named_children` gives a module once: the list without the second one is another network."""
    model, x = _twice(nn.ReLU()), torch.randn(7, 6)
    once = nn.Sequential(*dict(model.named_children()).values())
    assert len(once) == 4
    assert not torch.allclose(once(x), model(x))
