"""Made-up records of 30 methods, 5 seeds and 2 scenarios, with every kind of gap that real stores have."""

from typing import Any

from cl_ext.metrics import METRICS
from cl_ext.study.frame import MATRICES, curve
from cl_ext.study.frame import matrix as matrix_of

import numpy as np
import pandas as pd

NAMES = [
    *("naive", "joint", "joint_incremental", "cumulative", "separate", "from_scratch"),
    *("er", "der", "derpp", "gem", "agem", "mir", "icarl", "gdumb", "bic", "lwf", "si", "mas", "local_mas", "ewc"),
    *("ewc_online", "rwalk", "scp", "imm_mode", "ebll", "ogd", "packnet", "cpg", "dualnet", "clser"),
]
SCENARIOS = {name: ("task",) if name in {"separate", "packnet", "cpg"} else ("task", "class") for name in NAMES}
FAILURES = {("gem", 1): "timeout", ("gem", 3): "timeout", ("scp", 0): "diverged"}
T = 5


def cells(**methods: "np.ndarray | list[float]") -> pd.DataFrame:
    """One board with these accuracies by seed; NaN is a failed cell."""
    rows = [
        {"study": "s", "stream": "d", "scenario": "class", "method": method, "seed": seed, "accuracy": value,
         "status": "failed" if np.isnan(value) else "done"}
        for method, values in methods.items()
        for seed, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def as_lists(matrix: np.ndarray) -> list[list[float | None]]:
    """A matrix as a record holds it: null where it is undefined."""
    return [[None if np.isnan(value) else float(value) for value in row] for row in matrix]


def matrix(name: str, seed: int, retain: float, T: int = T) -> np.ndarray:
    """A plausible accuracy matrix: each experience is learned and then decays towards `retain`."""
    random = np.random.RandomState(1000 * NAMES.index(name) + seed)
    R = 0.1 + 0.05 * random.rand(T + 1, T)
    for j in range(T):
        for i in range(j + 1, T + 1):
            age = i - j - 1
            R[i, j] = np.clip(0.93 * (retain + (1 - retain) * 0.5**age) + 0.03 * random.randn(), 0, 1)
    if name == "joint":
        R[:T] = np.nan
    if name == "icarl":
        R[0] = np.nan
        R[1:][np.triu_indices(T, k=1)] = np.nan
    return R


def record(name: str, scenario: str, seed: int) -> dict[str, Any]:
    """A cell's record with the fields of its spec."""
    index = NAMES.index(name)
    retain = {"naive": 0.05, "joint": 1.0, "joint_incremental": 0.97, "cumulative": 0.95}.get(name, index / 40)
    random = np.random.RandomState(index + 100 * seed)
    R = matrix(name, seed, retain if scenario == "task" else retain * 0.7)
    status = FAILURES.get((name, seed), "done")
    if name == "ogd" and scenario == "class":
        status = "failed"
    error = {"type": "ValueError", "message": "50% of a|b_c & d\nis too much", "traceback": "Traceback …"}
    points = []
    for e in range(1, T + 1):
        for iteration in range(1, 7):
            values = R[e - 1] + (R[e] - R[e - 1]) * (1 - np.exp(-iteration)) - 0.15 * (iteration == 1)
            row = as_lists(np.clip(values, 0, 1)[None])[0]
            points.append(
                {"experience": e, "epoch": 1, "iteration": iteration, "task_aware": row, "task_agnostic": row}
            )
    seconds = 10 * (1 + index / 8) * (1 + 0.1 * random.rand())
    return {
        "schema": 1,
        "run_id": f"{name}-{scenario}-{seed}",
        "study": "digits",
        "stream": "split digits",
        "scenario": scenario,
        "method": name,
        "seed": seed,
        "status": status,
        "error": None if status == "done" else error,
        "matrix": {"task_aware": as_lists(R), "task_agnostic": as_lists(R)} if status == "done" else None,
        "curves": {"loss": [], "accuracy": points if status == "done" and name != "joint" else []},
        "costs": {
            "seconds": seconds * 1.1,
            "cpu_seconds": seconds,
            "train_cpu_seconds": seconds * 0.8,
            "steps": 450,
            "parameters": 17000,
            "seconds_per_step": 0.001,
            "flops_per_step": 123456,
            "extra_bytes": 0 if index < 6 else int(300 * 1.6**index),
        },
    }


def records(seeds: int = 5, names: list[str] = NAMES) -> list[dict[str, Any]]:
    """Every cell of the study."""
    return [
        record(name, scenario, seed) for scenario in ("task", "class") for name in names for seed in range(seeds)
        if scenario in SCENARIOS[name]
    ]  # fmt: skip


def objects(cell: dict[str, Any]) -> dict[str, Any]:
    """The columns of a record that are no numbers, as `cl_ext.study.collect` makes them."""
    return {
        **{f"matrix_{which}": matrix_of(cell, which) for which in MATRICES},
        "curve": curve(cell),
        "sizes": cell.get("sizes") or [],
        "structure": cell.get("structure") or {},
        "environment": {},
    }


def frame(of: list[dict[str, Any]]) -> pd.DataFrame:
    """The tidy frame of these records, as `cl_ext.study.collect` makes it."""
    rows = []
    for cell in of:
        row = {key: cell[key] for key in ("study", "stream", "scenario", "method", "seed", "run_id", "status")}
        row["error"] = cell["error"] and f"{cell['error']['type']}: {cell['error']['message']}"
        if cell["status"] == "done":
            R = cell["matrix"]["task_aware"]
            for name, metric in METRICS.items():
                if metric.inputs == ("R",):
                    row |= {f"{name}{twin}": metric.function(R) for twin in ("", "_task_aware", "_task_agnostic")}
            row |= cell["costs"]
        row |= objects(cell)
        rows.append(row | {"hp.lr": 0.1})
    return pd.DataFrame(rows)
