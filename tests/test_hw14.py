"""The homework's forms in scripts/hw14.py are what its page says of them."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

from cl_ext.plugins import SCPPlugin

import pytest
import torch
from torch import Tensor

from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")


@pytest.fixture(scope="module")
def hw14() -> ModuleType:
    path = Path(__file__).resolve().parent.parent / "scripts" / "hw14.py"
    spec = importlib.util.spec_from_file_location("hw14", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_guards_that_are_sums_are_summed_again(hw14: ModuleType) -> None:
    class Decimal(hw14.HomeworkGuards):  # type: ignore[name-defined]
        """Task k has the importance 10^k, so that digits count the tasks."""

        name = "Decimal"

        def new_importance(self, strategy: Any) -> list[Tensor]:
            return [torch.full_like(p, 10.0**self.experiences) for p in self._tensors]

    plugin = Decimal(0.0)
    common.run([plugin])
    for omega in plugin.importances.values():
        assert bool((omega == 1124.0).all())  # 4 F1 + 2 F2 + F3 + F4


def test_slices_averaged_before_squaring_leave_a_hundredth(hw14: ModuleType) -> None:
    """In expectation 1/L of what one batch's squared Jacobian gives; 100 slices, many batches."""
    homework, ours = hw14.HomeworkSCP(0.0), SCPPlugin(0.0, mode="minibatch", init="first", alpha=0.0, batch_size=128)
    stream = common.benchmark().train_stream[:1]
    for plugin in (homework, ours):
        torch.manual_seed(0)
        common.train(common.strategy(common.mlp(), [plugin]), stream)
    sizes = [sum(float(o.sum()) for o in plugin.importances.values()) for plugin in (homework, ours)]
    assert 0.0 < sizes[0] < 0.1 * sizes[1]


def test_negative_importances_and_the_whole_gradient(hw14: ModuleType) -> None:
    plugin = hw14.HomeworkSI(1.0)
    common.run([plugin])
    assert min(float(o.min()) for o in plugin.importances.values()) < 0.0


@pytest.mark.parametrize("name", ["EWC", "SI", "RWalk", "SCP"])
@pytest.mark.parametrize("form", ["homework", "paper"])
def test_every_run_trains(hw14: ModuleType, name: str, form: str) -> None:
    plugin = hw14.RUNS[name][form](1e-3)
    runner = common.run([plugin])
    assert all(bool(torch.isfinite(p).all()) for p in runner.model.parameters())
    assert not common.same(common.weights(runner.model), common.weights(common.run([]).model))
