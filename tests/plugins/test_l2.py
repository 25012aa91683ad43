"""The L2 penalty against EWC with a Fisher of ones, the newest weights and the freezing limit."""

from typing import Any

from cl_ext.plugins import EWCPlugin, L2Plugin

import pytest
import torch
from torch import Tensor

from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")


class OnesEWC(EWCPlugin):
    """EWC whose Fisher is 1 everywhere."""

    def new_fisher(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        return {name: torch.ones_like(f) for name, f in super().new_fisher(*args, **kwargs).items()}


@pytest.mark.parametrize("network", [common.mlp, common.Growing])
def test_it_is_ewc_with_a_fisher_of_ones_and_twice_the_lambda(network: Any) -> None:
    """After one experience; later EWC's importances add up and these do not."""
    stream = common.benchmark().train_stream[:2]
    l2, ewc, half = L2Plugin(0.5), OnesEWC(1.0), OnesEWC(0.5)
    found = []
    for plugin in (l2, ewc, half):
        torch.manual_seed(0)
        runner = common.strategy(network(), [plugin])
        common.train(runner, stream)
        found.append(common.weights(runner.model))
    assert common.same(found[0], found[1])
    assert not common.same(found[0], found[2])
    old = ewc.importances[next(iter(ewc.importances))]
    assert torch.equal(old, torch.full_like(old, 2.0))


@pytest.mark.parametrize("network", [common.mlp, common.Growing])
def test_every_weight_counts_1_around_the_latest(network: Any) -> None:
    plugin = L2Plugin(0.5)
    runner = common.run([plugin], network)
    for name, parameter in runner.model.named_parameters():
        assert torch.equal(plugin.importances[name], torch.ones_like(parameter))
        assert torch.equal(plugin.anchors[name], parameter)
    assert plugin.penalty() == 0.0
    with torch.no_grad():
        for parameter in runner.model.parameters():
            parameter.add_(0.5)
    assert plugin.penalty() == pytest.approx(0.25 * sum(p.numel() for p in runner.model.parameters()), rel=1e-5)


def _move(l2_lambda: float, heads: Any = "include") -> dict[str, float]:
    """How far each weight goes in the second experience at most."""
    torch.manual_seed(0)
    runner = common.strategy(common.mlp(), [L2Plugin(l2_lambda, heads)])
    runner.optimizer = torch.optim.SGD(runner.model.parameters(), lr=1e-3)
    stream = common.benchmark().train_stream
    common.train(runner, stream[:1])
    before = common.weights(runner.model)
    common.train(runner, stream[:2], first=1)
    return {name: float((value - before[name]).abs().max()) for name, value in common.weights(runner.model).items()}


def test_strong_it_freezes() -> None:
    """At lr * 2 lambda = 1 each step starts from theta*: no weight goes further than one step's gradient."""
    free, held, trunk = _move(0.0), _move(500.0), _move(500.0, "exclude")
    assert max(held.values()) < 0.3 * max(free.values())
    assert max(_move(900.0).values()) < max(_move(5.0).values()) < max(free.values())
    assert trunk["2.weight"] > 2 * held["2.weight"]
    assert trunk["0.weight"] < 0.5 * free["0.weight"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"l2_lambda": -0.5}, ValueError, r"L2Plugin: l2_lambda must be in \[0, inf\), got -0.5"),
        ({"l2_lambda": float("inf")}, ValueError, r"l2_lambda must be in \[0, inf\), got inf"),
        ({"l2_lambda": None}, TypeError, "l2_lambda must be a number, got None"),
        ({"heads": "all"}, ValueError, "heads must be one of 'include', 'exclude', got 'all'"),
    ],
)
def test_bad_hyper_parameters(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        L2Plugin(**arguments)
    assert L2Plugin(0.3).l2_lambda == 0.3
