"""Net2Net's teacher and students on MNIST: students that begin with the teacher's function, and ones that do not.

    python scripts/net2net_teacher.py --data-root ../shared/data [--train 6000] [--test 2000] [--epochs 3]

A teacher (two convolutions of 64 filters, a linear layer of 64) is trained, then a wider student (the first convolution
and the linear layer doubled) and a deeper one (a layer behind the second convolution and one behind the linear layer),
each twice: by Net2Net, and with the new weights drawn at random beside the teacher's ("random"). The setting is that of
the example in Keras' repository; its validation losses stand beside ours. It was run there on all 60,000 images.
"""

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path

import cl_ext  # noqa: F401  (the torchvision guard)
from cl_ext.models.growable import Body
from cl_ext.models.networks import Network
from cl_ext.nn.growth import append_units, drawn, drawn_rows
from cl_ext.nn.net2net import deepen, draw_mapping, widen
from cl_ext.streams.datasets import load_dataset

import torch
from torch import Tensor, nn
from torch.nn import functional

Data = tuple[Tensor, Tensor]
KERAS = {
    "teacher": (0.075, 0.041, 0.041),
    "wider, random": (0.036, 0.034, 0.032),
    "wider, Net2Net": (0.032, 0.030, 0.030),
    "deeper, random": (0.061, 0.043, 0.041),
    "deeper, Net2Net": (0.032, 0.031, 0.029),
}


def teacher(shape: tuple[int, ...], classes: int, filters: int) -> Network:
    """The teacher, untrained, for images of a shape (C, H, W)."""
    positions = (shape[1] // 4) * (shape[2] // 4)
    features = nn.Sequential(
        nn.Conv2d(shape[0], filters, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(filters, filters, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(filters * positions, filters), nn.ReLU(),
    )  # fmt: skip
    return Network(features, nn.Linear(filters, classes))


def wider(model: Network, random: bool, generator: torch.Generator) -> None:
    """Doubles the first convolution and the linear layer."""
    for name in ("0", "7"):
        body = Body(model)
        index = next(i for i, stage in enumerate(body.stages) if stage.name == name)
        stage, group = body.stages[index], body.groups[index]
        n = stage.units
        if not random:
            widen(group, draw_mapping(n, 2 * n, generator), noise=0.01, generator=generator)
            continue
        reader, block = group.readers[0]
        weight: Tensor = reader.weight  # type: ignore[assignment]
        columns = drawn((len(weight), n * block, *weight.shape[2:]), 2 * weight[0].numel(), weight, generator)
        append_units(body.stages, index, drawn_rows(stage.layer, n, generator), None, columns, [body.classifier])


def deeper(model: Network, random: bool, generator: torch.Generator) -> None:
    """Puts a layer behind the second convolution, and one behind the linear layer."""
    for label, name in enumerate(("3", "7"), start=1):
        body = Body(model)
        new = deepen(body.root, next(stage for stage in body.stages if stage.name == name), label)
        if random:
            layer = new[0]
            with torch.no_grad():
                weight: Tensor = layer.weight  # type: ignore[assignment]
                weight.copy_(drawn(weight.shape, weight[0].numel(), weight, generator))


def fit(model: nn.Module, train: Data, test: Data, epochs: int, rate: float, batch: int, seed: int) -> list[float]:
    """Trains by SGD with momentum 0.9; gives the loss on test samples after each epoch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(epochs):
        model.train()
        for chosen in torch.randperm(len(train[0]), generator=generator).split(batch):
            optimizer.zero_grad()
            functional.cross_entropy(model(train[0][chosen]), train[1][chosen]).backward()
            optimizer.step()
        losses.append(loss_on(model, test))
    return losses


@torch.no_grad()
def loss_on(model: nn.Module, data: Data) -> float:
    """The mean cross-entropy in eval mode."""
    model.eval()
    pairs = zip(data[0].split(500), data[1].split(500), strict=True)
    return sum(float(functional.cross_entropy(model(x), y, reduction="sum")) for x, y in pairs) / len(data[0])


def samples(arguments: argparse.Namespace) -> tuple[Data, Data]:
    """Grey values in [0, 1], the first training and test images."""
    data = load_dataset(arguments.dataset, arguments.data_root)
    parts = []
    for x, y, count in ((data.x_train, data.y_train, arguments.train), (data.x_test, data.y_test, arguments.test)):
        parts.append((torch.as_tensor(x[:count]).float() / float(x.max()), torch.as_tensor(y[:count]).long()))
    return parts[0], parts[1]


def main() -> None:
    """Runs the five trainings and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--train", type=int, default=6000)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--filters", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    train, test = samples(arguments)
    first = teacher(tuple(train[0].shape[1:]), int(train[1].max()) + 1, arguments.filters)
    start = time.process_time()
    rows = {"teacher": fit(first, train, test, arguments.epochs, 0.01, arguments.batch, arguments.seed)}
    begins: dict[str, float] = {}
    ways: list[tuple[str, Callable[[Network, bool, torch.Generator], None]]] = [("wider", wider), ("deeper", deeper)]
    for name, change in ways:
        for random in (True, False):
            student = copy.deepcopy(first)
            change(student, random, torch.Generator().manual_seed(arguments.seed))
            label = f"{name}, {'random' if random else 'Net2Net'}"
            begins[label] = loss_on(student, test)
            rows[label] = fit(student, train, test, arguments.epochs, 0.001, arguments.batch, arguments.seed + 1)
    print(f"{len(train[0])} training images, batch {arguments.batch}, {time.process_time() - start:.0f} CPU seconds")
    print(f"| network | before | {' | '.join(f'epoch {e + 1}' for e in range(arguments.epochs))} | Keras' example |")
    print("|---" * (arguments.epochs + 3) + "|")
    for label, losses in rows.items():
        before = f"{begins[label]:.3f}" if label in begins else "-"
        values = " | ".join(f"{value:.3f}" for value in losses)
        print(f"| {label} | {before} | {values} | {', '.join(f'{value:.3f}' for value in KERAS[label])} |")


if __name__ == "__main__":
    main()
