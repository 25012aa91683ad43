"""From a store to one tidy frame: a row a cell. Reads records only; needs neither torch nor Avalanche."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cl_ext.methods import METHODS
from cl_ext.metrics import METRICS, average_accuracy
from cl_ext.study.cellspec import CellSpec, criterion
from cl_ext.study.document import StudyError
from cl_ext.study.origins import tuning_of
from cl_ext.study.store import FINISHED, Store

import numpy as np
import pandas as pd

MATRICES = ("task_aware", "task_agnostic")
_COSTS = (
    "parameters", "parameters_nonzero", "extra_bytes", "steps", "seconds", "cpu_seconds", "train_seconds",
    "train_cpu_seconds", "seconds_per_step", "flops_per_step", "peak_memory_bytes",
)  # fmt: skip
_REFERENCE = "joint_incremental"

OBJECTS = (*(f"matrix_{which}" for which in MATRICES), "curve", "sizes", "structure", "environment", "spec")
"""The columns of the frame that hold no number or text: what figures are drawn from and where a cell comes from."""


def load_records(*roots: Path | str, study: str | None = None) -> list[dict[str, Any]]:
    """All records of one or several stores, each merged with its cell's description; stale ones are left out.

    Args:
        roots: Stores.
        study: Only the cells that this study asks for.

    Returns:
        A dictionary a cell: the record's keys and `study`, `stream` (a label), `scenario`, `method`, `seed`,
        `hyperparameters`, `spec`, `tuning` (see `tuning_of`), `environment` (versions, commit, machine,
        device), `others` (what other stores hold as its accuracy, where they disagree). A cell that several studies
        share appears once for each; the first store's finished record is the one that counts.
    """
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for root in roots:
        store = Store(root)
        studies = {name: content | {"cells": set(content["cells"])} for name, content in store.studies().items()}
        for run_id in store.run_ids():
            record, spec = store.record(run_id), store.spec(run_id)
            if record is None or spec is None or is_stale(spec):
                continue
            for name, label in _owners(run_id, studies, study, spec):
                known = merged.get((name, run_id))
                if known is not None and known["status"] == record["status"] == FINISHED:
                    if known.get("matrix") != record.get("matrix"):
                        accuracy = final_accuracy(record, spec.scenario)
                        known["others"].append(f"{'none' if accuracy is None else f'{accuracy:.4f}'} in {root}")
                elif known is None or (known["status"] != FINISHED and record["status"] == FINISHED):
                    said = studies.get(name, {}).get("tuning", {}) if spec.hyperparameters else {}
                    made = store.environment(run_id) or {}
                    own = tuning_of(said, spec.method, spec.scenario)
                    origin = {
                        "tuning": own if name in studies else own | made.get("tuning", {}),
                        "environment": made | {"device": spec.device},
                    }
                    kind = str(studies.get(name, {}).get("kind", "study"))
                    merged[name, run_id] = _merge(record, spec, name, label) | origin | {"others": [], "kind": kind}
    return list(merged.values())


def is_stale(spec: CellSpec) -> bool:
    """Whether a record's method has moved on: its row has another revision than the record."""
    return spec.method in METHODS.own_names and METHODS[spec.method].revision != spec.revision


def _owners(
    run_id: str, studies: Mapping[str, Mapping[str, Any]], wanted: str | None, spec: CellSpec
) -> Iterator[tuple[str, str]]:
    owners = [(name, str(content["stream"])) for name, content in studies.items() if run_id in content["cells"]]
    if not owners:
        owners = [("", f"{spec.stream['name']} {spec.stream['dataset']}")]
    for name, label in owners:
        if wanted is None or name == wanted:
            yield name, label


def _merge(record: Mapping[str, Any], spec: CellSpec, study: str, label: str) -> dict[str, Any]:
    return dict(record) | {
        "study": study,
        "stream": label,
        "scenario": spec.scenario,
        "method": spec.method,
        "seed": spec.seed,
        "hyperparameters": dict(spec.hyperparameters),
        "spec": spec,
    }


def collect(*roots: Path | str, study: str | None = None) -> pd.DataFrame:
    """One tidy frame of one or several stores: a row a cell, accuracies as fractions, undefined values NaN.

    The scenario's own criterion gives `accuracy` and its fellows: task-aware in task-incremental streams, else
    task-agnostic. Each has its `_task_aware` and `_task_agnostic` twin. Intransigence is against `joint_incremental` of
    the same study, scenario and seed.

    Args:
        roots: Stores.
        study: Only the cells that this study asks for.

    Returns:
        The frame; a failed cell has its status and error, and NaN for all that it did not reach. `elsewhere` tells the
        accuracies that further stores hold for the same finished cell, "" where none differs; `kind` says whether
        its study is a `study`, a `search` (measured on held-out training data), a `sweep` or an `ablation`. Its last
        columns (`OBJECTS`) hold what figures are drawn from and where a cell comes from:

        - `matrix_task_aware`, `matrix_task_agnostic`: the accuracy matrices, (T + 1, T), NaN where undefined; None
          where the cell did not finish;
        - `curve`: accuracies while training, a row an instant: `experience` (from 1), `epoch`, `iteration`, and
          `task_aware`, `task_agnostic`, (T,) arrays; None where the study evaluates between experiences only;
        - `sizes`: what the method holds before and after each experience, [] in old records;
        - `structure`: what it tells of its network, {} for most;
        - `environment`: versions, commit, machine and device;
        - `spec`: the cell's description, as JSON values.
    """
    records = load_records(*roots, study=study)
    references = {
        (record["study"], record["scenario"], record["seed"], *_conditions(record["spec"])): record
        for record in records
        if record["method"] == _REFERENCE and record["status"] == FINISHED
    }
    rows = []
    for record in records:
        place = record["study"], record["scenario"], record["seed"], *_conditions(record["spec"])
        try:
            rows.append(_row(record, references.get(place)))
        except ValueError as error:
            name = f"{record['method']}, {record['scenario']}-incremental, seed {record['seed']}"
            raise StudyError(f"the record of cell {record['run_id']} ({name}) can't be used: {error}") from error
    frame = pd.DataFrame(rows)
    return frame if frame.empty else frame.sort_values(["study", "scenario", "method", "seed"], ignore_index=True)


def _conditions(spec: CellSpec) -> tuple[str, ...]:
    return str(spec.stream), str(spec.network), str(spec.budget)


def matrix(record: Mapping[str, Any], which: str) -> np.ndarray | None:
    """A record's accuracy matrix `(T + 1, T)`, NaN where undefined; None where the cell did not finish."""
    matrices = record.get("matrix")
    return None if matrices is None else np.array(matrices[which], dtype=float)


def curve(record: Mapping[str, Any]) -> pd.DataFrame | None:
    """A record's accuracies while training, a row an instant (see `collect`); None where it has none."""
    instants = _instants(record)
    return None if instants is None else _curve(instants)


def _instants(record: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    """The same as arrays: (N,) for each number of an instant, (N, T) for the accuracies of each kind."""
    points = (record.get("curves") or {}).get("accuracy")
    if not points:
        return None
    instants = {name: np.array([point[name] for point in points]) for name in ("experience", "epoch", "iteration")}
    return instants | {which: np.array([point[which] for point in points], dtype=float) for which in MATRICES}


def _curve(instants: Mapping[str, np.ndarray]) -> pd.DataFrame:
    return pd.DataFrame({name: values if values.ndim == 1 else list(values) for name, values in instants.items()})


def final_accuracy(record: Mapping[str, Any] | None, scenario: str) -> float | None:
    """A record's final average accuracy in [0, 1] by the scenario's criterion; None where there is none."""
    R = matrix(record or {}, criterion(scenario))
    accuracy = np.nan if R is None else average_accuracy(R)
    return None if np.isnan(accuracy) else float(accuracy)


def _row(record: Mapping[str, Any], reference: Mapping[str, Any] | None) -> dict[str, Any]:
    error = record.get("error")
    spec: CellSpec = record["spec"]
    row: dict[str, Any] = {
        "study": record["study"],
        "stream": record["stream"],
        "scenario": record["scenario"],
        "method": record["method"],
        "seed": record["seed"],
        "run_id": record["run_id"],
        "status": record["status"],
        "error": f"{error['type']}: {error['message']}" if error else None,
        "class_order": spec.stream.get("class_order"),
        "kind": record["kind"],
        "elsewhere": "; ".join(record["others"]),
    }
    own = criterion(record["scenario"])
    matrices = {which: matrix(record, which) for which in MATRICES}
    instants = _instants(record)
    values: dict[str, float] = {}
    before: tuple[np.ndarray | None, ...] = ()
    for which in MATRICES:
        R, a_star = matrices[which], None if reference is None else matrix(reference, which)
        accuracies = None if instants is None else instants[which]
        # In domain-incremental streams both kinds are the same.
        if not before or not all(map(_same, (R, a_star, accuracies), before)):
            values = _measures(R, a_star, accuracies, instants or {})
        before = (R, a_star, accuracies)
        row |= {f"{name}_{which}": value for name, value in values.items()}
        if which == own:
            row |= values
    costs = record.get("costs", {})
    row |= {name: np.nan if costs.get(name) is None else costs[name] for name in _COSTS}
    row |= {f"hp.{name}": value for name, value in record["hyperparameters"].items()}
    tuning = record["tuning"]
    row |= {
        "tuning_protocol": tuning["protocol"],
        "tuning_configurations": np.nan if tuning["configurations"] is None else tuning["configurations"],
        "tuning_seeds": None if tuning["seeds"] is None else ", ".join(map(str, tuning["seeds"])),
    }
    row |= {f"matrix_{which}": R for which, R in matrices.items()}
    return row | {
        "curve": None if instants is None else _curve(instants),
        "sizes": record.get("sizes") or [],
        "structure": record.get("structure") or {},
        "environment": record["environment"],
        "spec": dict(vars(spec)),
    }


def _same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other, equal_nan=True)


def _measures(
    R: np.ndarray | None,
    reference: np.ndarray | None,
    accuracies: np.ndarray | None,
    instants: Mapping[str, np.ndarray],
) -> dict[str, float]:
    inputs: dict[str, Any] = {
        "R": R,
        "reference": None if reference is None else np.diagonal(reference[1:]),
        "curve": accuracies,
        "experience": instants.get("experience"),
        "iteration": instants.get("iteration"),
    }
    whole = inputs
    if R is not None and accuracies is not None:
        curve, experience = _with_ends(R, accuracies, instants["experience"])
        whole = inputs | {"curve": curve, "experience": experience}
    found = {}
    for name, metric in METRICS.items():
        given = [(whole if metric.ends else inputs).get(key) for key in metric.inputs]
        found[name] = np.nan if any(value is None for value in given) else metric.function(*given)
    return found


def _with_ends(R: np.ndarray, accuracies: np.ndarray, experience: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies (N', T) and experiences (N',) of a curve's instants and of the end of each experience.

    An evaluation plan of so many iterations may pass over an end, and some methods still change the network there.

    Args:
        R: (T + 1, T); its rows that are not defined are left out.
        accuracies: (N, T).
        experience: (N,), from 1.
    """
    ended = np.array([e for e in range(1, len(R)) if not np.isnan(R[e]).all()], dtype=int)
    order = np.argsort(np.concatenate([experience, ended]), kind="stable")
    return np.concatenate([accuracies, R[ended]])[order], np.concatenate([experience, ended])[order]
