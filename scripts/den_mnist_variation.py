"""DEN beside ten single-task networks on turned digits over noise: ten one-against-the-rest tasks, AUROC, parameters.

    python scripts/den_mnist_variation.py --data-root ../shared/data [--seeds 0-2] [--part validation] [--set sigma=0.1]

Without further options it makes the table of docs/methods/den.md, with the values that were chosen there on validation
data; `--row-defaults` takes those of the row `den` in their place, which were not.

The setting of Yoon et al. 2018 (MNIST-Variation) with data made here (`cl_ext.streams.variation`): 1,000, 200 and 5,000
images a class to train, validate and test, an MLP of 312 and 128 hidden units, batches of 256, the same number of
iterations in each phase. A task's positives are one tenth of its data, and batches come as they fall. DEN trains one
network on the ten tasks in turn; each is then compared with a network of its own that had a phase's iterations.
Printed, and written as JSON where --out says: AUROC by task, the mean difference with its 95 % interval over seeds, and
parameters relative to those of the ten networks together (all; those that are not 0; those a task reads, the mean).
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import cl_ext  # noqa: F401
from cl_ext._avalanche_methods.common import silence_deprecations
from cl_ext._avalanche_quiet import QuietEvaluation
from cl_ext.methods import METHODS
from cl_ext.models import NetworkSpec, build_network
from cl_ext.models.expansion import expandable
from cl_ext.nn.capacity import capacity
from cl_ext.plugins import DENPlugin
from cl_ext.report.statistics import summarize
from cl_ext.streams import BatchedLoading, as_tensors
from cl_ext.streams.datasets import load_dataset
from cl_ext.streams.variation import SIZES, one_against_the_rest, variation
from cl_ext.study.reader import parse_seeds

import torch
from avalanche.training import Naive
from sklearn.metrics import roc_auc_score
from torch import nn

BATCH, HIDDEN = 256, (312, 128)
CHOSEN = {"tau": -1.0, "mu": 1e-4, "prox_step": 0.1, "gamma": 0.003, "k": 40, "den_lambda": 0.03, "drift_share": 1.0,
          "retrain_share": 1.0, "sigma": 0.12}  # fmt: skip
"""Hyper-parameters chosen on the validation images of seed 1000; docs/methods/den.md says how."""


def learner(
    model: nn.Module, arguments: argparse.Namespace, epochs: int, seed: int, decay: float, *plugins: Any
) -> Naive:
    """Returns `Naive` with the script's optimizer on a network."""
    make = torch.optim.Adam if arguments.optimizer == "adam" else torch.optim.SGD
    return Naive(
        model=model, optimizer=make(model.parameters(), lr=arguments.lr, weight_decay=decay),
        criterion=nn.CrossEntropyLoss(), train_mb_size=BATCH, train_epochs=epochs, eval_mb_size=2048,
        plugins=[*plugins, BatchedLoading(seed=seed)], evaluator=QuietEvaluation(),
    )  # fmt: skip


def say(line: str) -> None:
    """Progress, apart from the results."""
    print(line, file=sys.stderr, flush=True)


@torch.no_grad()
def area(model: nn.Module, experience: Any, task: int) -> float:
    """Returns the AUROC of a task: the score is the difference of its two logits."""
    model.eval()
    x, y, _ = as_tensors(experience.dataset)
    logits = torch.cat([model(part, task)[:, 2 * task : 2 * task + 2] for part in x.split(2048)])
    return float(roc_auc_score((y == 2 * task + 1).numpy(), (logits[:, 1] - logits[:, 0]).numpy()))


def hyper_parameters(pairs: list[str], chosen: bool) -> dict[str, Any]:
    """Returns the plugin's arguments: the row's defaults or the chosen ones, and `name=value` in their place."""
    row, base = METHODS["den"], CHOSEN if chosen else {}
    given = row.resolve(base | {name: json.loads(value) for name, _, value in (pair.partition("=") for pair in pairs)})
    return given | {name: given[name] or None for name in ("iterations", "max_splits", "prox_step")}


def one_seed(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Returns AUROCs by task, DEN's parameters relative to the single-task networks', its history, and CPU seconds."""
    data = load_dataset(arguments.dataset, arguments.data_root)
    benchmark = one_against_the_rest(variation(data, seed, tuple(size // arguments.fraction for size in SIZES)))
    train = list(benchmark.train_stream)[: arguments.tasks]
    test = list(getattr(benchmark, f"{arguments.part}_stream"))[: arguments.tasks]
    epochs = max(1, round(arguments.iterations / math.ceil(len(train[0].dataset) / BATCH)))
    torch.manual_seed(seed)
    base = build_network(NetworkSpec("mlp", hidden=HIDDEN), data.x_train.shape[1:], 2 * len(train))
    given = hyper_parameters(arguments.set, not arguments.row_defaults)
    plugin, den = DENPlugin(**given, seed=seed), expandable(base)
    start, first = time.process_time(), []
    strategy = learner(den, arguments, epochs, seed, 0.0, plugin)
    for task, experience in enumerate(train):
        strategy.train(experience)
        first.append(area(den, test[task], task))
        say(f"seed {seed}: DEN, task {task + 1} of {len(train)}: AUROC {first[-1]:.4f}, "
            f"units {[layer['units'] for layer in plugin.history[-1]['layers'].values()]}")  # fmt: skip
    middle = time.process_time()
    single, parameters = [], 0
    for task, experience in enumerate(train):
        alone = expandable(base)
        learner(alone, arguments, epochs, seed, given["l2"]).train(experience)
        single.append(area(alone, test[task], task))
        say(f"seed {seed}: a network of its own, task {task + 1} of {len(train)}: AUROC {single[-1]:.4f}")
        parameters += capacity([alone])["parameters"]
    used = capacity([den])
    by_task = used["by_task"].values()
    return {
        "seed": seed, "den": [area(den, test[task], task) for task in range(len(train))], "den_at_first": first,
        "single": single,
        "relative": {"all": used["parameters"] / parameters, "not 0": used["nonzero"] / parameters,
                     "read by a task": sum(by_task) / len(by_task) / parameters},
        "history": plugin.history, "seconds": [middle - start, time.process_time() - middle],
    }  # fmt: skip


def table(results: list[dict[str, Any]]) -> str:
    """Returns the Markdown table of means over seeds, and the lines under it."""

    def mean(name: str, task: int) -> float:
        return sum(result[name][task] for result in results) / len(results)

    lines = ["| task | DEN at the end | DEN when trained | its own network |", "|---|---|---|---|"]
    for task in range(len(results[0]["den"])):
        lines.append(
            f"| {task} | " + " | ".join(f"{mean(name, task):.4f}" for name in ("den", "den_at_first", "single")) + " |"
        )
    averages = {name: [sum(r[name]) / len(r[name]) for r in results] for name in ("den", "den_at_first", "single")}
    lines.append("| mean | " + " | ".join(f"{sum(each) / len(each):.4f}" for each in averages.values()) + " |")
    pair = summarize([a - b for a, b in zip(averages["den"], averages["single"], strict=True)])
    lines += ["", f"difference {pair.mean:+.4f} ± {pair.half_width:.4f} (95 %, {pair.n} seeds)"]
    for name in results[0]["relative"]:
        share = summarize([100 * result["relative"][name] for result in results])
        lines.append(f"parameters ({name}): {share.mean:.1f} % ± {share.half_width:.1f} of the single-task networks'")
    seconds = [sum(result["seconds"][index] for result in results) / len(results) for index in (0, 1)]
    lines.append(f"CPU seconds a seed: DEN {seconds[0]:.0f}, the single-task networks {seconds[1]:.0f}")
    return "\n".join(lines)


def main() -> None:
    """Runs the seeds and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--dataset", default="mnist", help="grey images")
    parser.add_argument("--seeds", default="0-2")
    parser.add_argument("--part", choices=("validation", "test"), default="test", help="what is measured on")
    parser.add_argument("--iterations", type=int, default=1000, help="of a phase, rounded to whole epochs")
    parser.add_argument("--optimizer", choices=("adam", "sgd"), default="adam")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="DEN's hyper-parameters")
    parser.add_argument("--row-defaults", action="store_true", help="start from the row's values, not from the chosen")
    parser.add_argument("--tasks", type=int, default=10, help="the first N tasks alone")
    parser.add_argument("--fraction", type=int, default=1, help="an N-th of the samples, for a trial")
    parser.add_argument("--out", type=Path, help="a JSON file for all results")
    arguments = parser.parse_args()
    silence_deprecations()
    torch.set_num_threads(1)
    results = [one_seed(arguments, seed) for seed in parse_seeds(arguments.seeds)]
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1))
    print(table(results))


if __name__ == "__main__":
    main()
