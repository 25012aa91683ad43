"""Searches the strengths of a study's methods over all their decades and prints the study's `values:` block.

    python scripts/strengths.py benchmarks/digits.yaml --out runs/strengths-digits

Honest by construction: accuracy is measured on a fifth of the training data, held out, on a seed that studies do not
report. One hyper-parameter a method is searched, the one with a range of decades (its strength); the others stay at the
study's values. Of equal strengths (to a tenth of a point) the smallest is taken. Every cell goes into the store, so
that an interrupted search goes on.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from cl_ext.methods import METHODS
from cl_ext.study import CellSpec, Store, Study
from cl_ext.study.executors.local import LocalExecutor
from cl_ext.study.frame import matrix

TUNING_SEED = 1000
HELD_OUT = 0.2


def searched(method: str) -> str | None:
    """The hyper-parameter with a range of decades: the method's strength."""
    return next((name for name in METHODS[method].hyperparameters if name.endswith("_lambda")), None)


def grid(study: Study, seeds: Sequence[int]) -> dict[tuple[str, str, float], list[CellSpec]]:
    """The cells of the search by method, scenario and strength."""
    cells: dict[tuple[str, str, float], list[CellSpec]] = {}
    for cell in study.with_selection(seeds=seeds).cells():
        name = searched(cell.method)
        if name is None:
            continue
        for value in METHODS[cell.method].hyperparameters[name].search:
            changed = dataclasses.replace(
                cell,
                stream=dict(cell.stream) | {"validation": HELD_OUT},
                hyperparameters=dict(cell.hyperparameters) | {name: value},
            )
            cells.setdefault((cell.method, cell.scenario, value), []).append(changed)
    return cells


def main() -> None:
    """Runs the search and prints what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the store of the search")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--methods", help="only these, separated by commas")
    parser.add_argument("--seeds", type=int, nargs="+", default=[TUNING_SEED])
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    study = Study.load(arguments.study, arguments.data_root)
    if arguments.methods:
        study = study.with_selection(arguments.methods.split(","))
    cells = grid(study, arguments.seeds)
    store = Store(arguments.out)
    left = [cell for group in cells.values() for cell in group if store.status(cell.run_id) is None]
    total = sum(len(group) for group in cells.values())
    print(f"{total} cells, {len(left)} to run", flush=True)
    root = str(arguments.data_root.resolve()) if arguments.data_root else None
    options = {"data_root": root, "files": {key: str(path) for key, path in study.files.items()}, "threads": 1}
    done = 0
    for outcome in LocalExecutor(store, options, arguments.workers).run(left):
        if outcome.status != "started":
            done += 1
            if done % 20 == 0:
                print(f"{done} of {len(left)}", flush=True)
    found: dict[str, dict[str, dict[float, float | None]]] = {}
    for (method, scenario, value), group in cells.items():
        found.setdefault(method, {}).setdefault(scenario, {})[value] = _accuracy(store, group)
    print("values:")
    for method, by_scenario in found.items():
        best = {}
        for scenario, accuracies in by_scenario.items():
            shown = ", ".join(f"{v:g}: {'-' if a is None else f'{a:.3f}'}" for v, a in accuracies.items())
            print(f"  # {method} {scenario}: {shown}")
            known = {value: accuracy for value, accuracy in accuracies.items() if accuracy is not None}
            if known:
                best[scenario] = max(known, key=lambda value: (round(known[value], 3), -value))
        print(f"  {method}: {{{searched(method)}: {json.dumps(best)}}}")


def _accuracy(store: Store, group: Sequence[CellSpec]) -> float | None:
    """The mean final accuracy of a group's seeds by the scenario's criterion; None where one failed."""
    values = []
    for cell in group:
        R = matrix(store.record(cell.run_id) or {}, "task_aware" if cell.scenario == "task" else "task_agnostic")
        if R is None:
            return None
        values.append(float(R[-1].mean()))
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
