"""The forms of RWalk in scripts/agem_rwalk.py are what docs/methods/rwalk.md says of them."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from cl_ext.plugins import RWalkPlugin

import pytest
import torch
from torch import Tensor

from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent / "scripts"))
    return importlib.import_module("agem_rwalk")


@pytest.mark.parametrize(("old", "new", "expected"), [(0.5, 0.5, 2.25), (1.5, 0.5, 5.25), (1.0, 1.0, 6.0)])
def test_recursion_of_scores(script: ModuleType, old: float, new: float, expected: float) -> None:
    """Scores 1, 2, 3 of three experiences."""

    class Given(script.GrowingScores):  # type: ignore[name-defined]
        name = "Given"

        def consolidate(self, strategy: Any) -> None:
            for score in self._task_score.tensors:
                score.fill_(self.experiences + 1.0)
            super().consolidate(strategy)

    plugin = Given(0.0, old, new)
    common.train(common.strategy(common.mlp(), [plugin]), common.benchmark().train_stream[:3])
    for score in plugin.scores.values():
        torch.testing.assert_close(score, torch.full_like(score, expected))


def test_halves_are_the_paper(script: ModuleType) -> None:
    plugins = [RWalkPlugin(0.1), script.GrowingScores(0.1, 0.5, 0.5)]
    for plugin in plugins:
        torch.manual_seed(0)
        common.run([plugin])
    for a, b in zip(plugins[0].importances.values(), plugins[1].importances.values(), strict=True):
        assert torch.equal(a, b)


def test_the_released_form_against_a_plain_loop(script: ModuleType) -> None:
    """One experience, written anew: F from means of squared gradients, scores with the F of the segment before."""
    steps: list[tuple[list[Tensor], list[Tensor], list[Tensor]]] = []

    class Watched(script.ReleasedRWalk):  # type: ignore[name-defined]
        name = "Watched"

        def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            super().before_update(strategy, *args, **kwargs)
            gradients = [p.grad.clone() for p in self._tensors if p.grad is not None]
            steps.append((gradients, [p.detach().clone() for p in self._tensors], []))

        def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            super().after_update(strategy, *args, **kwargs)
            steps[-1][2].extend(p.detach().clone() for p in self._tensors)

    plugin, delta_t = Watched(0.1), 4
    plugin.delta_t = delta_t
    common.train(common.strategy(common.mlp(), [plugin]), common.benchmark().train_stream[:1])
    assert len(steps) == 6
    for index, name in enumerate(plugin.running_fisher):
        zero = torch.zeros_like(steps[0][1][index])
        f, score, path, squares, start = zero, zero, zero, zero, steps[0][1][index]
        for t, (gradients, before, after) in enumerate(steps, 1):
            g, move = gradients[index], after[index] - before[index]
            path, squares = path - g * move, squares + g * g
            if t % delta_t == 0 or t == len(steps):
                distance = after[index] - start
                score = score + (path / (f * distance * distance + 1e-3)).clamp_min(0.0)
                f = 0.9 * squares / delta_t + 0.1 * f
                path, squares, start = zero, zero, after[index]
        torch.testing.assert_close(plugin.running_fisher[name], f)
        torch.testing.assert_close(plugin.scores[name], score)
