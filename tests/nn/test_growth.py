"""Chains of layers: who feeds whom, units added, removed and repeated, and shapes fitted to a saved state."""

from itertools import pairwise
from typing import Any

from cl_ext.nn.chain import chain
from cl_ext.nn.growth import append_units, drawn_rows, keep_units, silent_units
from cl_ext.nn.resizing import columns_of, fit_shapes

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn


def _mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def _cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()), nn.Flatten(), nn.Linear(4 * 9, 5), nn.ReLU(),
    )  # fmt: skip


def _shaken(features: nn.Sequential) -> nn.Sequential:
    """Statistics and affine weights of batch norm that are not its first ones."""
    for module in features.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return features.eval()


def test_the_stages_of_an_mlp_and_a_cnn() -> None:
    assert [(s.name, s.units, s.block) for s in chain(_mlp(7, 5, 4), 4)] == [("1", 5, 1), ("4", 4, 1)]
    stages = chain(_cnn(), 5)
    assert [(s.name, s.units, s.block) for s in stages] == [("0", 3, 1), ("4.0", 4, 9), ("6", 5, 1)]
    assert stages[0].norm is not None
    assert stages[0].norm[0] == "1"
    assert stages[1].norm is None


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (nn.Linear(3, 4), "nn.Sequential"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), "2 groups"),
        (nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), "LayerNorm"),
        (nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4)), "before the first layer"),
        (nn.Sequential(nn.Flatten()), "no hidden layer"),
        (nn.Sequential(nn.Linear(3, 5)), "no whole block"),
    ],
)
def test_what_is_no_chain_is_refused_in_a_sentence(features: nn.Module, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        chain(features, 4)


@pytest.mark.parametrize("make", [lambda: (_mlp(6, 5, 4), 4, (3, 6)), lambda: (_cnn(), 5, (3, 2, 6, 6))])
def test_units_that_nobody_reads_change_nothing(make: Any) -> None:
    features, width, shape = make()
    _shaken(features)
    x = torch.randn(shape)
    before = features(x)
    head = nn.Linear(width, 2)
    generator = torch.Generator().manual_seed(3)
    for index in range(len(chain(features, head.weight.shape[1]))):
        stages = chain(features, head.weight.shape[1])
        rows = drawn_rows(stages[index].layer, 2, generator)
        append_units(stages, index, rows, torch.rand(2), last=[head])
    grown = chain(features, head.weight.shape[1])
    assert [s.units for s in grown] == [s.units + 2 for s in chain(make()[0], width)]
    assert torch.allclose(features(x)[:, :width], before, atol=1e-5)
    assert head.in_features == width + 2
    assert torch.allclose(head(features(x)), nn.functional.linear(before, head.weight[:, :width], head.bias), atol=1e-5)


def test_new_rows_begin_as_the_layers_own_do() -> None:
    layer = nn.Linear(400, 3)
    rows = drawn_rows(layer, 500, torch.Generator().manual_seed(0))
    assert rows.shape == (500, 400)
    assert float(rows.abs().max()) <= 1 / 20
    assert float(rows.var()) == pytest.approx(1 / (3 * 400), rel=0.02)
    assert torch.equal(rows, drawn_rows(layer, 500, torch.Generator().manual_seed(0)))


def _function(features: nn.Sequential, x: Tensor) -> Tensor:
    out: Tensor = features(x)
    return out


def test_removing_silent_units_leaves_the_function() -> None:
    """Rows, biases and shift of batch norm are 0, so that the unit says 0 to the flattened block that reads it."""
    features = _cnn()
    with torch.no_grad():
        features[4][0].weight[1] = 0  # type: ignore[index]
        features[4][0].bias[1] = 0  # type: ignore[index]
    x = torch.randn(3, 2, 6, 6)
    features.eval()
    before = _function(features, x)
    stages = chain(features, 5)
    silent = silent_units(stages[1].layer)
    assert silent.tolist() == [False, True, False, False]
    keep_units(stages, 1, (~silent).nonzero().flatten())
    assert features[6].in_features == 27
    assert torch.allclose(_function(features, x), before, atol=1e-6)


def test_a_unit_with_a_bias_is_no_silent_one() -> None:
    """The trap: zero incoming weights, and yet relu(b) goes out."""
    features = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        features[0].weight[2] = 0
        features[0].bias[2] = 1.0
    x = torch.randn(5, 3)
    before = _function(features, x)
    stages = chain(features, 2)
    keep_units(stages, 0, torch.tensor([0, 1, 3]))
    assert not torch.allclose(_function(features, x), before)


def test_a_units_columns_are_a_block() -> None:
    assert columns_of(torch.tensor([2, 0]), 2).tolist() == [4, 5, 0, 1]
    assert columns_of(torch.tensor([2, 0]), 1).tolist() == [2, 0]


@given(data=st.data(), seed=st.integers(0, 1000))
def test_repeating_and_reordering_units_is_matrix_selection(data: st.DataObject, seed: int) -> None:
    """Any list of units, repeated or left out: the chain equals the one built from selected rows and columns."""
    torch.manual_seed(seed)
    features = _shaken(_mlp(3, 4, 2))
    kept = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=7)))
    x = torch.randn(5, 3)
    hidden = features[:4](x)
    expected = nn.functional.linear(hidden[:, kept], features[4].weight[:, kept], features[4].bias)
    keep_units(chain(features, 2), 0, kept)
    assert torch.allclose(features[:5](x), expected, atol=1e-5)
    assert features[1].out_features == features[2].num_features == features[4].in_features == len(kept)


def test_a_grown_network_is_read_into_one_that_has_not_grown() -> None:
    features, fresh = _shaken(_cnn()), _cnn().eval()
    for index in range(3):
        stages = chain(features, features[6].out_features)
        append_units(stages, index, drawn_rows(stages[index].layer, 3, torch.Generator()), torch.rand(3))
    fit_shapes(fresh, features.state_dict())
    fresh.load_state_dict(features.state_dict())
    x = torch.randn(2, 2, 6, 6)
    assert torch.equal(fresh(x), features(x))
    assert fresh[0].out_channels == 6
    assert fresh[1].num_features == 6
    assert fresh[6].in_features == 7 * 9
