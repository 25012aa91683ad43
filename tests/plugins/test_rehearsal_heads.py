"""Rehearsal on a network with a head a task equals rehearsal on one head with a loss over each task's own classes."""

import math
from collections.abc import Callable

from cl_ext.methods.criterion import ScenarioCrossEntropy
from cl_ext.models.expansion import ExpandableNetwork, expandable
from cl_ext.plugins import CLSERPlugin, DERPlugin, ERPlugin, SimEMAPlugin
from cl_ext.plugins.base import MethodPlugin
from cl_ext.plugins.rehearsal import OutputsRead
from cl_ext.plugins.sim_ema import weighted_consistency

import pytest
import torch
from torch import nn

from tests.plugins import common

TASKS = [[2 * task, 2 * task + 1] for task in range(common.EXPERIENCES)]
MEMORY = {"mem_size": 30, "mem_batch_size": 9, "seed": 2}
METHODS: dict[str, Callable[[], MethodPlugin]] = {
    "er": lambda: ERPlugin(**MEMORY),
    "der": lambda: DERPlugin(alpha=0.5, beta=0.0, **MEMORY),
    "der++": lambda: DERPlugin(alpha=0.5, beta=0.5, **MEMORY),
    "clser": lambda: CLSERPlugin(1.0, plastic_alpha=0.9, stable_alpha=0.95, **MEMORY),
    "clser, two passes": lambda: CLSERPlugin(1.0, plastic_alpha=0.9, shared_forward=False, **MEMORY),
    "sim_ema": lambda: SimEMAPlugin(1.0, alpha=0.9, **MEMORY),
    "sim_ema, groups": lambda: SimEMAPlugin(1.0, alpha=0.9, tau_join=1.0, teacher="best", **MEMORY),
}


def trained(plugin: MethodPlugin, heads: bool) -> dict[str, torch.Tensor]:
    """Weights by name after plain SGD on four tasks; all heads' rows together, in the order of their classes."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(common.FEATURES, 16), nn.ReLU(), nn.Linear(16, common.CLASSES))
    model = expandable(network) if heads else network
    runner = common.strategy(
        model, [plugin], optimizer=torch.optim.SGD(model.parameters(), lr=0.05),
        criterion=nn.CrossEntropyLoss() if heads else ScenarioCrossEntropy(TASKS),
    )  # fmt: skip
    for experience in common.benchmark("nc-tasks").train_stream:
        torch.manual_seed(experience.current_experience)
        runner.train(experience)
    if not isinstance(model, ExpandableNetwork):
        return {"features": network[0].weight, "head": network[2].weight, "bias": network[2].bias}
    assert [model.heads[task].classes.tolist() for task in model.heads.tasks] == TASKS
    rows = [model.heads[task] for task in range(len(TASKS))]
    layer = next(module for module in model.features.modules() if isinstance(module, nn.Linear))
    bias = torch.cat([row.bias for row in rows if row.bias is not None])
    return {"features": layer.weight, "head": torch.cat([row.weight for row in rows]), "bias": bias}


@pytest.mark.parametrize("method", METHODS)
def test_heads_and_a_loss_over_a_tasks_own_classes_are_the_same(method: str) -> None:
    shared, heads = (trained(METHODS[method](), heads) for heads in (False, True))
    naive = trained(ERPlugin(mem_size=0), True)
    for name, value in shared.items():
        assert torch.isfinite(heads[name]).all(), name
        torch.testing.assert_close(heads[name], value, rtol=1e-4, atol=1e-5, msg=name)
    assert not torch.allclose(naive["features"], heads["features"], atol=1e-3)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("er", "clser, two passes")])
def test_the_term_that_a_method_adds_to_er_is_there_with_heads_too(method: str) -> None:
    er, own = trained(METHODS["er"](), True), trained(METHODS[method](), True)
    assert not torch.allclose(er["features"], own["features"], atol=1e-3)


def test_which_outputs_count_is_found_anew_where_they_become_more() -> None:
    read, loss, none = OutputsRead(), nn.CrossEntropyLoss(), -math.inf
    y = torch.tensor([0, 2])
    assert read(loss, torch.zeros(2, 3), y) is None
    wider = torch.tensor([[1.0, 2.0, none, none], [none, none, 0.5, 0.0]], requires_grad=True)
    expected = torch.tensor([[True, True, False, False], [False, False, True, True]])
    found = read(loss, wider, y)
    assert found is not None
    assert torch.equal(found, expected)
    both = read(ScenarioCrossEntropy([[0, 1, 2], [3]]), wider.detach()[:, [0, 1, 2, 3, 3]], y)  # five outputs
    assert both is not None
    assert both.tolist() == [[True, True, False, False, False], [False, False, True, False, False]]
    read.restart()
    assert read(loss, torch.zeros(2, 5), y) is None


def test_a_weighted_consistency_has_no_gradient_of_what_is_not_there() -> None:
    none = -math.inf
    z = torch.tensor([[1.0, none], [2.0, 4.0]], requires_grad=True)
    Z, w = torch.tensor([[3.0, none], [2.0, 1.0]]), torch.tensor([0.5, 2.0])
    value = weighted_consistency(z, Z, w, torch.isfinite(z))
    assert float(value) == pytest.approx((0.5 * 4 + 0 + 2 * 9) / 3)
    (gradient,) = torch.autograd.grad(value, z)
    torch.testing.assert_close(gradient, torch.tensor([[0.5 * -4, 0.0], [0.0, 2 * 6]]) / 3)
