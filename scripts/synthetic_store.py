"""Writes a store of made-up records, to time `cl-ext report` on and to look at pages and figures of many methods.

    python scripts/synthetic_store.py /tmp/store --methods 40 --seeds 20 --streams 6 --failed 3 --diverged 1 --missing 2
    cl-ext report /tmp/store

Cells, ids and files are those of a real run; the numbers are drawn: an experience is learned and then decays, at a rate
of the method's own. Nothing is trained, and nothing says anything about a method.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cl_ext.methods import METHODS, Budget
from cl_ext.models import NetworkSpec
from cl_ext.streams.spec import StreamSpec
from cl_ext.study import Store, Study
from cl_ext.study.cellspec import SCHEMA, CellSpec
from cl_ext.study.environment import environment
from cl_ext.study.runner import describe

import numpy as np

STREAMS = (
    ("split", "mnist", 5, "class"),
    ("split", "fashion_mnist", 5, "task"),
    ("permuted", "mnist", 10, "domain"),
    ("rotated", "mnist", 10, "domain"),
    ("split", "cifar10", 5, "class"),
    ("split", "cifar100", 10, "task"),
)
TEST_SIZE = 500
RETAINED = {"naive": 0.05, "joint": 1.0, "joint_incremental": 0.97, "cumulative": 0.95, "from_scratch": 0.0}
KINDS = ("failed", "diverged", "missing", "half_written")


def studies(streams: int, methods: int, seeds: int, instants: int) -> Iterator[Study]:
    """The studies, one a stream; the methods are the first of the table that can do every scenario.

    Raises:
        ValueError: the table has fewer such methods.
    """
    able = [name for name in METHODS if {"task", "domain", "class"} <= set(METHODS[name].scenarios)]
    if methods > len(able):
        raise ValueError(f"--methods is {methods}; {len(able)} methods can do every scenario")
    for number in range(streams):
        name, dataset, experiences, scenario = STREAMS[number % len(STREAMS)]
        again = f"_{number // len(STREAMS) + 1}" if number >= len(STREAMS) else ""
        epochs = number // len(STREAMS) + 1  # another budget, so that the cells of a stream used twice differ
        yield Study(
            name=f"synthetic_{name}_{dataset}{again}",
            version=1,
            title=f"Made up: {name} {dataset}",
            stream=StreamSpec(name=name, dataset=dataset, experiences=experiences, scenario=scenario),
            scenarios=(scenario,),
            network=NetworkSpec("mlp"),
            budget=Budget(epochs=epochs),
            evaluation=100 if instants else "experience",
            seeds=tuple(range(seeds)),
            methods=tuple(able[:methods]),
            tuning={"protocol": "made up", "configurations": dict.fromkeys(able[:methods], 7), "seeds": [1000]},
        )


def record(cell: CellSpec, instants: int) -> dict[str, Any]:
    """A finished cell's record."""
    T = cell.stream["experiences"]
    index = list(METHODS).index(cell.method)
    # What a seed draws is shared by all methods, as in real runs.
    shared = np.random.RandomState([cell.seed, T]).randn(T)
    own = np.random.RandomState([cell.seed, T, index])
    retained = RETAINED.get(cell.method, 0.1 + 0.8 * ((7 * index) % 40) / 40)
    hard = {"task": 1.0, "domain": 0.85, "class": 0.6}[cell.scenario]
    age = np.arange(T + 1)[:, None] - np.arange(1, T + 1)
    level = retained * hard + (1 - retained * hard) * 0.5 ** np.maximum(age, 0)
    R = np.where(age < 0, 0.1, 0.95 * level) + 0.02 * shared + 0.02 * own.randn(T + 1, T)
    R = _hits(R)
    if cell.method == "joint":
        R[:T] = np.nan
    aware = R if cell.scenario == "domain" else np.minimum(1, R + 0.05)
    seconds = 10 * (1 + index / 8) * (1 + 0.1 * own.rand())
    extra = 0 if index < 6 else int(1000 * 1.25**index)
    parameters = 89610
    return {
        "schema": SCHEMA,
        "run_id": cell.run_id,
        "status": "done",
        "error": None,
        "matrix": {"task_aware": _lists(aware), "task_agnostic": _lists(R)},
        "class_counts": [2] * T,
        "test_sizes": [TEST_SIZE] * T,
        "sizes": [
            {
                "experience": experience,
                "parameters": parameters,
                "nonzero": parameters,
                "extra_bytes": extra * experience // T,
                "train_cpu_seconds": 0.8 * seconds * experience / T,
            }
            for experience in range(T + 1)
        ],
        "structure": {},
        "curves": {
            "loss": [
                {"experience": e, "epoch": 1, "iteration": 100 * e * max(1, instants), "loss": 0.3 + 0.1 * own.rand()}
                for e in range(1, T + 1)
            ],
            "accuracy": _curve({"task_aware": aware, "task_agnostic": R}, instants) if cell.method != "joint" else [],
        },
        "costs": {
            "seconds": 1.1 * seconds,
            "cpu_seconds": seconds,
            "train_seconds": 0.9 * seconds,
            "train_cpu_seconds": 0.8 * seconds,
            "seconds_per_step": 0.8 * seconds / (100 * T),
            "steps": 100 * T * max(1, instants),
            "flops_per_step": 17_000_000 + 100_000 * index,
            "parameters": parameters,
            "parameters_nonzero": parameters,
            "extra_bytes": extra,
            "peak_memory_bytes": 400_000_000 + extra,
        },
    }


def _curve(matrices: dict[str, np.ndarray], instants: int) -> list[dict[str, Any]]:
    """Evaluations inside each experience: a drop at its first, then towards its end."""
    points = []
    for e in range(1, len(matrices["task_aware"])):
        for instant in range(1, instants + 1):
            way = 1.0 if instant == instants else 1 - np.exp(-3 * instant / instants)
            drop = 0.1 if instant == 1 < instants else 0.0
            point: dict[str, Any] = {"experience": e, "epoch": 1, "iteration": 100 * ((e - 1) * instants + instant)}
            for which, R in matrices.items():
                point[which] = _lists(_hits(R[e - 1] + way * (R[e] - R[e - 1]) - drop)[None])[0]
            points.append(point)
    return points


def _hits(accuracy: np.ndarray) -> np.ndarray:
    """Accuracies that a test set of this size can give: ties are as frequent as in real runs."""
    return np.round(np.clip(accuracy, 0, 1) * TEST_SIZE) / TEST_SIZE


def _lists(R: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(value) else float(value) for value in row] for row in R]


def _without_result(record: dict[str, Any], status: str) -> dict[str, Any]:
    kind = {"failed": "RuntimeError", "diverged": "DivergedError"}[status]
    error = {"type": kind, "message": f"made up: {status} | 50 % of <b> & _x_", "traceback": f"{kind}: made up"}
    costs = {name: record["costs"][name] for name in ("seconds", "cpu_seconds", "peak_memory_bytes")}
    return {"schema": SCHEMA, "run_id": record["run_id"], "status": status, "error": error, "costs": costs}


def write(out: Path, made: list[Study], gaps: dict[str, int], instants: int) -> dict[str, list[CellSpec]]:
    """Writes the store.

    Args:
        out: its folder.
        made: the studies.
        gaps: how many cells of each of `KINDS` there are; which ones is drawn, the same at every run.
        instants: evaluations inside an experience.

    Returns:
        The cells of each kind.
    """
    store = Store(out)
    cells = {study.name: study.cells() for study in made}
    every = [cell for of in cells.values() for cell in of]
    drawn = iter(np.random.RandomState(0).permutation(len(every)).tolist())
    chosen = {kind: [every[next(drawn)] for _ in range(gaps.get(kind, 0))] for kind in KINDS}
    kinds = {cell.run_id: kind for kind, of in chosen.items() for cell in of}
    for study in made:
        store.write_study(study.name, describe(study, cells[study.name]))
    for cell in every:
        kind = kinds.get(cell.run_id)
        if kind == "missing":
            continue
        content = record(cell, instants)
        if kind in ("failed", "diverged"):
            content = _without_result(content, kind)
        place = store.write(cell, content, environment(), "made up\n")
        if kind == "half_written":  # as a full disk leaves it
            text = json.dumps(content)
            (place / "record.json").write_text(text[: len(text) // 2], encoding="utf-8")
    return chosen


def main() -> int:
    """Returns 0, or 2 where the options are impossible or the folder is taken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the store; a folder that is not there yet")
    for name, default in (("methods", 40), ("seeds", 20), ("streams", 6)):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"by default {default}")
    parser.add_argument("--instants", type=int, default=3, metavar="N", help="evaluations inside an experience (3)")
    for kind in KINDS:
        parser.add_argument(f"--{kind.replace('_', '-')}", type=int, default=0, metavar="N", help="so many such cells")
    options = parser.parse_args()
    gaps = {kind: getattr(options, kind) for kind in KINDS}
    total = options.methods * options.seeds * options.streams
    try:
        for name in ("methods", "seeds", "streams"):
            if getattr(options, name) < 1:
                raise ValueError(f"--{name} is {getattr(options, name)}; it takes a whole number of at least 1")
        for name in ("instants", *KINDS):
            if getattr(options, name) < 0:
                raise ValueError(f"--{name.replace('_', '-')} is {getattr(options, name)}; it takes 0 or more")
        if sum(gaps.values()) > total:
            raise ValueError(f"{sum(gaps.values())} cells are to have gaps, and there are {total}")
        if options.out.exists():
            raise ValueError(f"{options.out} is already there; a made-up store goes into a folder of its own")
        made = list(studies(options.streams, options.methods, options.seeds, options.instants))
    except ValueError as error:
        print(f"synthetic_store: {error}", file=sys.stderr)
        return 2
    chosen = write(options.out, made, gaps, options.instants)
    print(
        f"{options.out}: {total} cells of {options.methods} methods, {options.seeds} seeds, {options.streams} streams"
    )
    for kind, cells in chosen.items():
        for cell in cells:
            print(f"{kind.replace('_', '-')}: {cell.stream['name']} {cell.stream['dataset']}, {cell.title()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
