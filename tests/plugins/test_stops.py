"""Early stopping, and a stop of the user's own, end what runs then: not the method's next phase, nor its pruning."""

from typing import Any

from cl_ext.models import expandable
from cl_ext.plugins import CPGPlugin, DENPlugin, PackNetPlugin

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.training.plugins import EarlyStoppingPlugin, EvaluationPlugin

from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore")

METHODS: dict[str, Any] = {
    "packnet": lambda: PackNetPlugin(0.5, retrain_epochs=2),
    "cpg": lambda: CPGPlugin(0.0, max_width=1.0, ladder=(0.3, 0.6), prune_epochs=0.5, recover_epochs=0.5,
                             retrain_epochs=1, mask_every=1, train_floor=0.0, hold_out=0.2),
    "den": lambda: DENPlugin(tau=-1.0, k=3, sigma=0.01),
}  # fmt: skip
each = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)


class Steps(SupervisedPlugin):
    """Counts the steps of each experience; asks to stop in the last of the strategy's own epochs where told to."""

    def __init__(self, stop: bool = False) -> None:
        super().__init__()
        self.counts: list[int] = []
        self._stop, self._epochs = stop, 0

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.counts.append(0)
        self._epochs = 0

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if self.counts:
            self.counts[-1] += 1

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self._epochs += 1
        if self._stop and self._epochs == strategy.train_epochs:
            strategy.stop_training()


def owners(model: Any) -> list[list[int]]:
    scheme = model.scheme
    return [[int((scheme.owners[name] == task).sum()) for task in range(4)] for name in scheme.owners.names]


def trained(plugins: list[Any], **options: Any) -> Any:
    torch.manual_seed(0)
    runner = common.strategy(expandable(common.mlp()), plugins, train_epochs=3, **options)
    stream = common.benchmark("nc-tasks")
    for number, experience in enumerate(stream.train_stream[:3]):
        torch.manual_seed(number)
        runner.train(experience, eval_streams=[stream.test_stream[:1]])
    return runner


@each
def test_a_stop_in_the_last_own_epoch_leaves_the_phases_alone(make: Any) -> None:
    plain, stopped = Steps(), Steps(stop=True)
    one, other = trained([make(), plain]), trained([make(), stopped])
    assert stopped.counts == plain.counts
    assert common.same(one.model.state_dict(), other.model.state_dict())


@each
def test_early_stopping_does_not_undo_what_a_phase_did(make: Any) -> None:
    def evaluator() -> EvaluationPlugin:
        return EvaluationPlugin(accuracy_metrics(stream=True))

    stopper = EarlyStoppingPlugin(1, "test_stream", metric_name="Top1_Acc_Stream")
    plugin = make()
    runner = trained([plugin, stopper], evaluator=evaluator(), eval_every=1)
    assert stopper in runner.plugins
    assert runner.plugins.index(stopper) > runner.plugins.index(plugin)
    model: Any = runner.model
    assert model.tasks == [0, 1, 2]
    if isinstance(plugin, DENPlugin):
        return
    found = owners(model)
    # without the mend the first task owned all: the state of before its pruning came back
    assert all(layer[task] > 0 for layer in found for task in (1, 2, 3))
