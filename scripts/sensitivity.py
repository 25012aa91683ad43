"""Runs a sweep of one hyper-parameter, and says how accuracy depends on it: a table with every seed, and a figure.

    python scripts/sensitivity.py benchmarks/digits.yaml --method ewc --hyperparameter ewc_lambda --grid 1e-3:1e6:10

Fine-tuning and joint training run beside it. The table goes into the store too, as sensitivity.md, with one figure for
each scenario. An interrupted sweep goes on where it was, and with `--out runs/digits` it shares the cells of the study
that are there. A sweep measures test data of the reported seeds: to choose a value is the business of `cl-ext tune`.
"""

import argparse
import sys
from pathlib import Path

from cl_ext._interrupt import interruptible

from rich.console import Console

with interruptible("sensitivity"):  # these take seconds
    from cl_ext.report import strength_sensitivity
    from cl_ext.report.drawing.style import save
    from cl_ext.report.tables.sweeps import sweep_table
    from cl_ext.study import Store, Study, StudyError, collect, run
    from cl_ext.study.progress import progress_for
    from cl_ext.study.reader import parse_seeds
    from cl_ext.study.sensitivity import Sweep, measured, parse_grid, parse_names, sweep_of


def _sweep(arguments: argparse.Namespace) -> Sweep:
    """The sweep that the command line asks for."""
    study = Study.load(arguments.study, arguments.data_root)
    seeds = None if arguments.seeds is None else parse_seeds(arguments.seeds)
    scenarios = None if arguments.scenarios is None else parse_names(arguments.scenarios)
    grid = parse_grid(arguments.grid)
    return sweep_of(study, arguments.method, arguments.hyperparameter, grid, scenarios, seeds)


def main() -> int:
    """Returns 0 where every cell is done, 1 where some failed, 2 for a mistake, 130 where it was interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--method", required=True)
    parser.add_argument("--hyperparameter", required=True, help="any number that the method has")
    parser.add_argument("--grid", required=True, help="FROM:TO:POINTS on a logarithmic scale, or a list")
    parser.add_argument("--scenarios", help="only these of the study's")
    parser.add_argument("--seeds", help="other seeds than the study's: 0-4 or 0,2,5")
    parser.add_argument("--out", type=Path, help="the store; by default runs/STUDY-METHOD-HYPERPARAMETER")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--retry-failed", action="store_true")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        sweep = _sweep(arguments)
        out = arguments.out or Path("runs") / sweep.name
        summary = run(
            sweep, out, workers=arguments.workers, device=arguments.device, data_root=arguments.data_root,
            retry_failed=arguments.retry_failed, progress=progress_for(console),
        )  # fmt: skip
    except StudyError as error:
        print(f"sensitivity: {error}", file=sys.stderr)
        return 2
    store, frame = Store(out), collect(out, study=sweep.name)
    tables = []
    for scenario in sweep.scenarios:
        tables.append(sweep_table(sweep, measured(sweep, store, scenario, arguments.device), scenario))
        own = frame[frame["scenario"] == scenario]
        for figure in strength_sensitivity(
            own, sweep.method, sweep.hyperparameter, chosen={scenario: sweep.chosen[scenario]}
        ):
            save(figure, out / f"sensitivity-{scenario}")
    page = "\n\n".join(tables)
    (out / "sensitivity.md").write_text(page + "\n", encoding="utf-8")
    print(page)
    return 1 if summary.failed else 0


if __name__ == "__main__":
    with interruptible("sensitivity"):
        sys.exit(main())
