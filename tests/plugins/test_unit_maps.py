"""Which task owns and uses which units, as a record tells it, after training by each method of the family."""

from typing import Any

from cl_ext.methods.accounting import structure
from cl_ext.models import expandable, pathnet, progressive
from cl_ext.plugins import CPGPlugin, DENPlugin, HATPlugin, PackNetPlugin, PathNetPlugin, PNNPlugin

import numpy as np
import pytest
from torch import nn

from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")

Maps = dict[str, np.ndarray]


def trained(plugin: Any, make: Any = expandable) -> nn.Module:
    model: Any = common.run([plugin], lambda: make(common.mlp()), "nc-tasks", experiences=3).model
    return model


def maps(plugin: Any, make: Any = expandable) -> tuple[Maps, Maps]:
    """Uses and owns by layer, (tasks, units)."""
    told = structure(trained(plugin, make), [])
    return tuple({layer: np.array(rows) for layer, rows in told[kind].items()} for kind in ("units", "owned"))  # type: ignore[return-value]


def test_packnets_tasks_own_disjoint_parts_and_use_all_before_them() -> None:
    model: Any = trained(PackNetPlugin(0.5))
    told = structure(model, [])
    for stage in model.stages:
        owner = model.scheme.owners[f"{stage.name}.weight"].numpy()
        by_hand = [[(row == task).mean() for row in owner] for task in (1, 2, 3)]
        owned = np.array(told["owned"][stage.name])
        assert np.allclose(owned, by_hand, atol=1e-4)
        assert (owned.sum(0) <= 1 + 1e-3).all()
        # a task reads what it and those before it own, but for the entries that training left at 0
        assert (np.array(told["units"][stage.name]) <= owned.cumsum(0) + 1e-3).all()


@pytest.mark.parametrize("plugin", [PackNetPlugin(0.5), CPGPlugin(max_width=1.0)], ids=["packnet", "cpg"])
def test_nobody_uses_what_only_later_tasks_own(plugin: Any) -> None:
    uses, owns = maps(plugin)
    for layer, used in uses.items():
        assert not (used > owns[layer].cumsum(0) + 1e-3).any()


def test_dens_units_belong_to_the_task_that_they_came_with() -> None:
    plugin = DENPlugin(tau=-1.0, k=3, mu=0.0, gamma=0.0, sigma=100.0)
    uses, owns = maps(plugin)
    for number, owned in enumerate(owns.values()):
        counts = [list(task["layers"].values())[number]["units"] for task in plugin.history]
        first = [sum(unit >= count for count in counts) for unit in range(owned.shape[1])]
        assert owned.tolist() == [[float(task == own) for own in first] for task in range(3)]
    assert not any((used > owned.cumsum(0)).any() for used, owned in zip(uses.values(), owns.values(), strict=True))


def test_hats_units_belong_to_the_task_that_opened_them_first() -> None:
    model: Any = trained(HATPlugin(0.5, s_max=50.0))
    told, start = structure(model, []), 0
    for stage in model.stages:
        on = np.array([[float(e) > 0 for e in model.scheme.embedding(task)] for task in range(3)])[
            :, start : start + stage.units
        ]
        start += stage.units
        first = np.where(on.any(0), on.argmax(0), 3)
        assert np.array(told["owned"][stage.name]).tolist() == [
            [float(own == task) for own in first] for task in range(3)
        ]


def test_pathnets_modules() -> None:
    plugin = PathNetPlugin(population=4, iterations=2)
    model: Any = trained(plugin, lambda model: pathnet(model, modules=5, active=2))
    told = structure(model, [])
    for layer in range(len(told["units"])):
        paths = [set(model.scheme.path(task)[layer].tolist()) for task in range(3)]
        assert told["units"][str(layer)] == [[float(m in path) for m in range(5)] for path in paths]
        new = [path - set().union(*paths[:task]) for task, path in enumerate(paths)]
        assert told["owned"][str(layer)] == [[float(m in path) for m in range(5)] for path in new]


def test_columns_of_progressive_networks() -> None:
    uses, owns = maps(PNNPlugin(), progressive)
    for layer, used in uses.items():
        units = used.shape[1] // 3
        assert owns[layer].tolist() == np.repeat(np.eye(3), units, axis=1).tolist()
        assert used.tolist() == np.repeat(np.tril(np.ones((3, 3))), units, axis=1).tolist()
