"""What holds for every plugin with a quadratic penalty: importances, anchors, the bound, divergence, heads."""

import warnings
from typing import Any

from cl_ext.nn.divergence import DivergedError
from cl_ext.plugins import RWalkPlugin, SCPPlugin

import pytest
import torch
from torch import nn

from tests.plugins import common
from tests.plugins.common import QUADRATIC, Case

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
each = pytest.mark.parametrize("case", QUADRATIC, ids=lambda case: case.name)


def _strength(case: Case, value: float) -> dict[str, float]:
    """The case's strength, by the name of its argument."""
    (name,) = case.off
    return {name: value}


@each
@pytest.mark.parametrize(
    ("network", "kind"),
    [(common.mlp, "nc"), (common.normed, "ci"), (common.Growing, "nc"), (common.MultiHead, "nc-tasks")],
)
def test_importances_and_anchors(case: Case, network: Any, kind: str) -> None:
    plugin = case()
    runner = common.run([plugin], network, kind)
    parameters = dict(runner.model.named_parameters())
    assert plugin.importances.keys() == plugin.anchors.keys() == parameters.keys()
    for name, parameter in parameters.items():
        assert plugin.importances[name].shape == plugin.anchors[name].shape == parameter.shape
        assert bool((plugin.importances[name] >= 0).all())
        assert bool(torch.isfinite(plugin.anchors[name]).all())
    assert max(float(o.max()) for o in plugin.importances.values()) > 0


@each
def test_frozen_layers_have_no_importance(case: Case) -> None:
    model = common.mlp()
    model[0].requires_grad_(False)
    plugin = case()
    common.train(common.strategy(model, [plugin]), common.benchmark().train_stream)
    assert plugin.importances.keys() == {"2.weight", "2.bias"}


@each
def test_penalty_and_importance_are_metrics(case: Case) -> None:
    plugin = case()
    runner = common.run([plugin])
    metrics = runner.evaluator.get_all_metrics()
    penalty = [metrics[f"{plugin.name}_Penalty/train_phase/train_stream/Exp{e:03d}"][1] for e in range(4)]
    assert penalty[0] == [0.0, 0.0]
    assert min(penalty[1] + penalty[2] + penalty[3]) > 0.0
    entries = sum(p.numel() for p in runner.model.parameters())
    mean = metrics[f"{plugin.name}_MeanImportance/train_phase/train_stream/Exp003"][1]
    assert mean == pytest.approx([sum(float(o.sum()) for o in plugin.importances.values()) / entries])


@each
def test_heads_can_be_left_out(case: Case) -> None:
    plugin = case(heads="exclude")
    common.run([plugin], common.Growing)
    assert plugin.importances.keys() == {"trunk.0.weight", "trunk.0.bias"}


@each
def test_an_unstable_strength_is_told(case: Case) -> None:
    """A warning with the bound when the experience begins, and an error with it in place of NaN."""
    runner = common.strategy(common.mlp(), [case(**_strength(case, 1e9))], train_epochs=30)
    stream = common.benchmark().train_stream
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runner.train(stream[0])
    bound = "SGD with learning rate 0.05 diverges on the penalty alone above strength"
    with pytest.warns(UserWarning, match=bound), pytest.raises(DivergedError, match=bound) as caught:
        runner.train(stream[1])
    assert "in experience 2, iteration" in str(caught.value)


@pytest.mark.parametrize("make", [RWalkPlugin, SCPPlugin])
def test_recurrent_networks(make: Any) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(1, 8, batch_first=True), nn.Linear(8, common.CLASSES)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.rnn(x.unsqueeze(-1))[0][:, -1])

    if make is SCPPlugin:
        common.run([SCPPlugin()], Recurrent)
        return
    common.run([RWalkPlugin(fisher="batch")], Recurrent)
    with pytest.raises(NotImplementedError, match='use the batch form, fisher="batch"'):
        common.run([RWalkPlugin()], Recurrent)
