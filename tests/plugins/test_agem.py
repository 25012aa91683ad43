"""A-GEM against a second derivation with plain loops, step by step, in float64; what its memory is drawn from."""

from typing import Any

from cl_ext.plugins import AGEMPlugin, GEMPlugin

import pytest
import torch
from torch import Tensor

from tests.plugins import common
from tests.plugins.test_gem import CHECKS, EPOCHS, MEMORY, Checked, derive, far, stream, train, trajectory

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
ALL = 20  # samples of an experience


def project(g: Tensor, G: Tensor) -> Tensor:
    return g - (G[0] @ g) / (G[0] @ G[0]) * G[0]


def _not_squared(g: Tensor, G: Tensor) -> Tensor:
    return g - (G[0] @ g) / G[0].norm() * G[0]


@pytest.mark.parametrize("network", [common.mlp, common.normed])
def test_it_equals_the_second_derivation_step_by_step(network: Any) -> None:
    """With a memory and a reference batch of everything nothing is random but dropout."""
    ours = trajectory(AGEMPlugin(ALL, 4 * ALL), network)
    assert far(ours, derive(network, project, ALL, union=True)) < 1e-9


@pytest.mark.parametrize(
    ("network", "faulty", "fault"),
    [
        (common.mlp, project, "one batch a task"),
        (common.mlp, project, "current task too"),
        (common.mlp, project, "always"),
        (common.mlp, _not_squared, ""),
        (common.normed, project, "reference with dropout"),
    ],
)
def test_negative_control(network: Any, faulty: Any, fault: str) -> None:
    """Mammoth's memory of one batch a task, Avalanche's dropout in the reference, and other faults, are far outside."""
    ours = trajectory(AGEMPlugin(ALL, 4 * ALL), network)
    assert far(ours, derive(network, faulty, ALL, union=True, fault=fault)) > 1e-2


@CHECKS
def test_every_kind_of_head(network: Any, task_labels: bool, dtype: torch.dtype) -> None:
    """Task labels are mixed in the reference batch."""
    checked = Checked(AGEMPlugin(MEMORY, 8), project)
    train(checked.plugins(), network, stream(task_labels, dtype))
    assert any(checked.projected)
    assert max(checked.ratios) <= 1 + 1e-6
    if network is common.MultiHead:
        assert checked.new_gradients > 0


def test_with_one_past_experience_it_is_gem_without_margin() -> None:
    def weights(plugin: Any) -> dict[str, Tensor]:
        return common.weights(train([plugin], common.mlp, stream()[:2]).model)

    agem, gem = weights(AGEMPlugin(ALL, ALL)), weights(GEMPlugin(ALL, margin=0.0, regularisation=0.0))
    for name, weight in agem.items():
        torch.testing.assert_close(gem[name], weight, rtol=1e-10, atol=1e-12)


def test_each_step_draws_its_own_batch_of_the_whole_memory() -> None:
    plugin = AGEMPlugin(MEMORY, 8)
    drawn: list[Tensor] = []
    own = plugin.references

    def references() -> Any:
        batches = own()
        drawn.extend(x for x, _, _ in batches)
        return batches

    plugin.references = references  # type: ignore[method-assign]
    train([plugin], common.mlp, stream())
    assert len(drawn) == 3 * EPOCHS * 3
    assert all(len(batch.unique(dim=0)) == 8 for batch in drawn)
    assert len({tuple(batch.flatten().tolist()) for batch in drawn}) == len(drawn)
    held = {tuple(x.tolist()) for parts in plugin.memory[:3] for x in parts[0]}
    assert {tuple(x.tolist()) for batch in drawn[-6:] for x in batch} <= held


def test_the_seed_decides_what_is_kept_and_drawn() -> None:
    def kept(seed: int) -> Tensor:
        plugin = AGEMPlugin(MEMORY, 8, seed)
        train([plugin], common.mlp, stream()[:1])
        return plugin.memory[0][0]

    assert torch.equal(kept(0), kept(0))
    assert not torch.equal(kept(0), kept(1))


def test_more_experiences_than_samples_in_a_batch() -> None:
    """Avalanche's A-GEM stops there."""
    plugin = AGEMPlugin(MEMORY, 1)
    runner = common.run([plugin])
    assert len(plugin.memory) == common.EXPERIENCES
    assert not common.same(common.weights(runner.model), common.weights(common.run([]).model))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mem_size": -1}, ValueError, "AGEMPlugin: mem_size must be an integer >= 0, got -1"),
        ({"mem_batch_size": 0}, ValueError, "AGEMPlugin: mem_batch_size must be an integer >= 1, got 0"),
        ({"mem_batch_size": 1.5}, TypeError, "mem_batch_size must be an integer, got 1.5"),
        ({"seed": -1}, ValueError, "AGEMPlugin: seed must be an integer >= 0, got -1"),
    ],
)
def test_bad_hyper_parameters(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        AGEMPlugin(**arguments)
