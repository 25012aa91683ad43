"""The capacity meter and the bytes beside, against an enumeration of the file that a trained network is saved in.

Every tensor of the file is a parameter, or beside the parameters, or named here as what no count has.
"""

import io
import re
from typing import Any

from cl_ext.nn.capacity import capacity

import pytest
import torch
from torch import Tensor

from tests.plugins import common
from tests.plugins.common import Case
from tests.plugins.family import FAMILY, GATED, GROWN, data, logits_of, made, samples, strided, tasks_of

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")

BESIDE = r"scheme\.(own|norms|owners|sizes|picks|paths)\.|scheme\.(tasks|stamps|widths|hide)$|gate\.|initial\."
"""Masks, copies, choices, shapes and paths of finished tasks; auto-encoders; the weights with which columns begin."""
STATISTICS = r"running_mean$|running_var$|num_batches_tracked$"
"""Those of the network itself, which no count of parameters has, of any method."""
UNCOUNTED = r"_extra_state$|heads\.template_|heads\.heads\.\d+\.classes$|known\.|scheme\.(s|s_test)$"
"""Names, class ids and hyper-parameters; and the weights with which heads begin: the study's own classifier."""

cases = pytest.mark.parametrize("case", [*FAMILY, *GATED, *GROWN], ids=lambda case: case.name)
networks = pytest.mark.parametrize("network", [common.normed, strided])


def _file(model: torch.nn.Module) -> dict[str, Tensor]:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    read: dict[str, Tensor] = torch.load(file, weights_only=True)
    return read


def _split(state: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters, and what is beside them."""
    beside = {name for name in state if re.match(BESIDE, name)}
    left_out = {name for name in state if re.search(f"{STATISTICS}|{UNCOUNTED}", name)} - beside
    return [t for name, t in state.items() if name not in beside | left_out], [state[name] for name in beside]


def _aids(case: Case, plugin: Any) -> int:
    """Bytes that a plugin holds for its training alone, by what its state or its own objects say."""
    name, state = case.make.__name__, plugin.state_dict()
    if name == "CPGPlugin":  # the initial network, where goals are those of single tasks
        return sum(t.nbytes for t in (state["initial"] or {}).values())
    if name == "HATPlugin":
        return int(plugin._mask.bytes() + plugin._A.nbytes)
    if name == "PathNetPlugin":
        return int(plugin.genotypes.nbytes)
    return int(state["bytes"]) if name == "DENPlugin" else 0


@pytest.mark.parametrize("case", [*FAMILY, *GATED, *GROWN], ids=lambda case: case.name)
@networks
def test_counts_are_those_of_the_file(case: Case, network: Any) -> None:
    with case.may_refuse(network):
        runner = made(case, network)
        common.train(runner, data(network).train_stream)
        counts, (parameters, beside) = capacity([runner.model]), _split(_file(runner.model))
        assert counts["parameters"] == sum(len(t.flatten().tolist()) for t in parameters)
        assert counts["nonzero"] == sum(value != 0 for t in parameters for value in t.flatten().tolist())
        plugin: Any = runner.plugins[0]
        assert plugin.extra_bytes() == sum(t.nbytes for t in beside) + _aids(case, plugin)
        model: Any = runner.model
        if case in GROWN:
            assert counts["by_task"] == {}
            return
        assert list(counts["by_task"]) == [str(task) for task in model.tasks]
        for task in model.tasks:
            by_hand = sum(value != 0 for t in model.effective(task).values() for value in t.flatten().tolist())
            assert counts["by_task"][str(task)] == by_hand > 0


@cases
def test_what_nobody_counts_is_not_read(case: Case) -> None:
    """But for statistics of batch norm: with other numbers in every uncounted tensor each task answers as before."""
    runner = made(case, strided)
    common.train(runner, data(strided).train_stream[:2])
    model, state, x = runner.model, runner.model.state_dict(), samples(strided, 6)
    before, changed = logits_of(model, x), 0
    with torch.no_grad():
        for name, tensor in state.items():
            if re.match(r"heads\.template_", name):
                tensor.fill_(3.0)
                changed += 1
    assert all(torch.equal(before[task], logits_of(model, x)[task]) for task in tasks_of(model))
    assert changed == (0 if case in (*GATED, *GROWN) else 2)


@pytest.mark.parametrize("case", [case for case in FAMILY if case.name in ("packnet", "cpg", "hat", "den")],
                         ids=lambda case: case.name)  # fmt: skip
def test_what_is_beside_is_read(case: Case) -> None:
    """Why it has to be counted: an old task's own biases and batch norm are beside, and its answers need them."""
    runner = made(case, strided)
    common.train(runner, data(strided).train_stream[:2])
    x, state = samples(strided, 6), runner.model.state_dict()
    before = logits_of(runner.model, x)[0]
    floats = [t for name, t in state.items() if re.match(BESIDE, name) and t.is_floating_point()]
    assert floats
    with torch.no_grad():
        for tensor in floats:
            tensor.add_(1.0)
    assert not torch.equal(before, logits_of(runner.model, x)[0])


def test_two_linear_layers_by_arithmetic() -> None:
    """PackNet on 6-16-C with batch norm, four tasks of two classes, from the sizes alone.

    Parameters: weights and biases, batch norm, four heads of 2 x 16 + 2. Beside: an owner's byte for each of the 96
    weights, a shape of two 4-byte numbers a task; and a task's 16 biases, with weight, bias, mean and variance of batch
    norm.
    """
    case = next(case for case in FAMILY if case.name == "packnet")
    runner = made(case, common.normed)
    common.train(runner, data(common.normed).train_stream)
    plugin: Any = runner.plugins[0]
    assert capacity([runner.model])["parameters"] == (6 * 16 + 16) + 2 * 16 + 4 * (2 * 16 + 2)
    assert plugin.extra_bytes() == 96 + 4 * (2 * 4) + 4 * 5 * 16 * 4
