"""Codes that tell no tasks apart are refused, by the plugin and in the rows."""

from typing import Any

from cl_ext.methods import METHODS
from cl_ext.models.expert_network import experts
from cl_ext.plugins import ExpertGatePlugin

import pytest
import torch
from torch import nn

from tests.methods.helpers import MLP, make, run, tiny_stream
from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")


def _train(code_size: int, form: Any = "pca", extractor: nn.Module | None = None, experiences: int = 2) -> Any:
    torch.manual_seed(0)
    plugin = ExpertGatePlugin(code_size=code_size, gate_epochs=1)
    runner = common.strategy(experts(common.mlp(), form, extractor), [plugin])
    common.train(runner, common.benchmark("nc").train_stream[:experiences])
    return plugin


@pytest.mark.parametrize("form", ["sigmoid", "linear", "pca"])
def test_a_code_as_large_as_what_it_codes_is_refused(form: Any) -> None:
    for code_size in (common.FEATURES, 100):
        with pytest.raises(ValueError, match=f"code_size is {code_size} and the gate has 6 features of a sample"):
            _train(code_size, form)
    assert len(_train(common.FEATURES - 1, form).history) == 1


def test_the_features_are_the_extractors() -> None:
    with pytest.raises(ValueError, match="code_size is 4 and the gate has 3 features"):
        _train(4, extractor=nn.Linear(common.FEATURES, 3))
    _train(4, extractor=nn.Linear(common.FEATURES, 9))


def test_errors_of_which_no_ratio_is_defined_are_refused() -> None:
    """All samples of both experiences are one and the same: each auto-encoder reconstructs them exactly."""
    x, y = torch.ones(16, common.FEATURES), torch.arange(4).repeat_interleave(4)
    stream = common.nc_benchmark(*[common.labelled(x, y)] * 2, 2, task_labels=False, shuffle=False).train_stream
    runner = common.strategy(experts(common.mlp(), "pca"), [ExpertGatePlugin(code_size=2)])
    runner.train(stream[0])
    with pytest.raises(ValueError, match="relatedness is undefined for the mean reconstruction errors 0, 0 of this"):
        runner.train(stream[1])


@pytest.mark.parametrize("name", ["expert_gate", "expert_gate_oracle"])
def test_a_row_takes_the_size_that_its_record_says_or_fails(name: str) -> None:
    """The default is below the 64 inputs of the smallest data set; a larger size is never made smaller unseen."""
    default = METHODS[name].hyperparameters["code_size"].default
    assert default < 64
    for size in (default, 100):
        built = make(name, "task", {"code_size": size}, network=MLP, benchmark=tiny_stream("task", experiences=2))
        (plugin,) = (p for p in built.strategy.plugins if isinstance(p, ExpertGatePlugin))
        assert plugin.code_size == size
    with pytest.raises(ValueError, match="code_size is 100 and the gate has 64 features"):
        run(name, "task", {"code_size": 100}, network=MLP, benchmark=tiny_stream("task", experiences=2))
