"""PathNet where somebody stops training early: the path that is kept is one that was trained."""

from typing import Any

from cl_ext.models.modular import pathnet
from cl_ext.plugins import PathNetPlugin

import pytest
import torch
from avalanche.core import SupervisedPlugin

from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")


class _Stop(SupervisedPlugin):
    """Stops training within its n-th iteration, as early stopping by iterations does."""

    def __init__(self, iteration: int) -> None:
        super().__init__()
        self.left = iteration

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.left -= 1
        if self.left == 0:
            strategy.stop_training()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("iterations", [1, 3])
def test_stopped_in_its_first_evaluation_it_keeps_the_path_that_was_trained(seed: int, iterations: int) -> None:
    torch.manual_seed(0)
    model = pathnet(common.mlp(), 6, 1)
    before = {name: p.detach().clone() for name, p in model.features.named_parameters()}
    plugin = PathNetPlugin(population=8, iterations=5, seed=seed)
    runner = common.strategy(model, [plugin, _Stop(iterations)], train_epochs=4)
    runner.train(common.benchmark("nc-tasks").train_stream[0])
    trained = {name for name, p in model.features.named_parameters() if not torch.equal(p, before[name])}
    path: Any = model.scheme.path(0)  # type: ignore[operator]
    assert plugin.genotypes[plugin._pair[0]].equal(path)
    assert trained == {f"layers.{layer}.{row[0]}.0.{part}" for layer, row in enumerate(path.tolist())
                       for part in ("weight", "bias")}  # fmt: skip


def test_stopped_before_any_batch_it_keeps_a_path_of_its_population() -> None:
    class Never(SupervisedPlugin):
        def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            strategy.stop_training()

    plugin = PathNetPlugin(population=4, iterations=2)
    runner = common.strategy(pathnet(common.mlp(), 6, 1), [plugin, Never()])
    runner.train(common.benchmark("nc-tasks").train_stream[0])
    assert plugin.genotypes[0].equal(runner.model.scheme.path(0))  # type: ignore[operator, union-attr]
