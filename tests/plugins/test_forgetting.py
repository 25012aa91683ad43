"""The claim itself: on task-incremental split digits the methods forget less than fine-tuning, seed by seed."""

from typing import Any

from cl_ext.plugins import RWalkPlugin, SCPPlugin

import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.training import Naive
from avalanche.training.plugins import EvaluationPlugin
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
SEEDS = range(8)


class TaskLoss:
    """Cross-entropy over the classes of the experience in training."""

    classes: list[int]

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        mask = torch.full_like(logits, float("-inf"))
        mask[:, self.classes] = 0.0
        return functional.cross_entropy(logits + mask, y)


def _forgetting(plugins: list[Any], seed: int) -> float:
    """Chaudhry et al.'s forgetting: mean over old tasks of the best earlier accuracy minus the last."""
    torch.manual_seed(seed)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16.0, dtype=torch.float32), torch.tensor(labels)
    held_out = torch.arange(len(x)) % 4 == 0
    order = torch.randperm(10).tolist()
    train = common.labelled(x[~held_out], y[~held_out])
    stream = nc_benchmark(train, train, 5, task_labels=False, fixed_class_order=order).train_stream
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    loss = TaskLoss()
    runner = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        criterion=loss,
        train_mb_size=32,
        train_epochs=3,
        plugins=plugins,
        evaluator=EvaluationPlugin(),
    )
    accuracy = torch.full((5, 5), float("nan"))
    for i, experience in enumerate(stream):
        loss.classes = order[2 * i : 2 * i + 2]
        runner.train(experience)
        for j in range(i + 1):
            classes = torch.tensor(order[2 * j : 2 * j + 2])
            chosen = held_out & torch.isin(y, classes)
            with torch.no_grad():
                predicted = classes[model(x[chosen])[:, classes].argmax(1)]
            accuracy[i, j] = float((predicted == y[chosen]).float().mean())
    return float(torch.stack([accuracy[j:4, j].max() - accuracy[4, j] for j in range(4)]).mean())


@pytest.fixture(scope="module")
def naive(one_thread: None) -> list[float]:
    return [_forgetting([], seed) for seed in SEEDS]


@pytest.mark.parametrize("make", [lambda: RWalkPlugin(5.0), lambda: SCPPlugin(10.0)], ids=["rwalk", "scp"])
def test_it_forgets_less_than_naive(make: Any, naive: list[float]) -> None:
    """Paired over seeds: the mean gain is over three standard errors, and at least half of what Naive forgets.

    Measured: Naive forgets 0.22, RWalk gains 0.19 (standard error 0.04), SCP 0.19 (0.04).
    """
    gains = torch.tensor([n - _forgetting([make()], seed) for n, seed in zip(naive, SEEDS, strict=True)])
    assert float(gains.mean()) > 3 * float(gains.std()) / len(SEEDS) ** 0.5
    assert float(gains.mean()) > 0.5 * sum(naive) / len(naive)
