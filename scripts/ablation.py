"""Runs an ablation, and prints each row's difference from the reference, seed by seed.

    python scripts/ablation.py benchmarks/ablations/sim_ema.yaml --data-root ../shared/data

The table is written beside the store too, as ablation.md. An interrupted run goes on where it was. Tests are exact
Wilcoxon signed-rank tests with Holm's correction over the rows; with so few seeds that the smallest reachable p is
above 0.05 after it, the table says "underpowered".
"""

import argparse
import dataclasses
import sys
from pathlib import Path

from cl_ext.report.statistics import holm, paired_difference, summarize
from cl_ext.study import Store, StudyError, run
from cl_ext.study.ablation import Ablation, accuracies
from cl_ext.study.progress import progress_for
from cl_ext.study.reader import parse_seeds

from rich.console import Console

LEVEL = 0.05


def table(ablation: Ablation, store: Store, scenario: str) -> str:
    """Returns the Markdown table of one scenario; accuracies in per cent, differences in points."""
    found = accuracies(ablation, store, scenario)
    base = found[ablation.reference]
    others = [name for name in found if name != ablation.reference]
    differences = {name: paired_difference(found[name], base) for name in others}
    corrected = dict(zip(others, holm([differences[name].p for name in others]), strict=True))
    lines = [
        f"{ablation.name}, {scenario}-incremental: the difference is from `{ablation.reference}`, seed by seed",
        "",
        "| row | accuracy | difference [95 % interval] | better at | p (Holm) |",
        "|---|---|---|---|---|",
    ]
    for name, values in found.items():
        row = summarize([100 * value for value in values.values()])
        if not row.n:
            lines.append(f"| {name} | no finished cell | | | |")
            continue
        mean = f"{row.mean:.2f}" + (f" ± {row.half_width:.2f}" if row.n > 1 else "")
        if name == ablation.reference:
            lines.append(f"| **{name}** | {mean} (n = {row.n}) | | | |")
            continue
        pair = differences[name]
        low, high = (100 * (pair.mean + sign * pair.half_width) for sign in (-1, 1))
        interval = f" [{low:+.2f}, {high:+.2f}]" if pair.n > 1 else ""
        verdict = f"{corrected[name]:.2g}" if pair.least_p * len(others) <= LEVEL else "underpowered"
        difference = f"{100 * pair.mean:+.2f}{interval} | {pair.better:g} of {pair.n}"
        lines.append(f"| {name} | {mean} (n = {row.n}) | {difference} | {verdict} |")
    return "\n".join(lines)


def main() -> int:
    """Returns 0 where every cell is done, 1 where some failed, 2 for a mistake in the file or the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ablation", type=Path)
    parser.add_argument("--out", type=Path, help="the store; by default runs/NAME")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--seeds", help="other seeds than the study's: 0-4 or 0,2,5")
    parser.add_argument("--workers", type=int)
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        ablation = Ablation.load(arguments.ablation, arguments.data_root)
        if arguments.seeds:
            ablation = dataclasses.replace(ablation, seeds=parse_seeds(arguments.seeds))
        out = arguments.out or Path("runs") / ablation.name
        summary = run(
            ablation, out, workers=arguments.workers, data_root=arguments.data_root, progress=progress_for(console)
        )
    except (StudyError, ValueError) as error:
        print(f"ablation: {error}", file=sys.stderr)
        return 2
    page = "\n\n".join(table(ablation, Store(out), scenario) for scenario in ablation.scenarios)
    (out / "ablation.md").write_text(page + "\n")
    print(page)
    return 1 if summary.failed else 0


if __name__ == "__main__":
    sys.exit(main())
