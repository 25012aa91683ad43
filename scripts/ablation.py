"""Runs an ablation, and prints each row's difference from the reference, seed by seed.

    python scripts/ablation.py benchmarks/ablations/sim_ema.yaml --data-root ../shared/data

The table is written into the store too, as ablation.md, and for each scenario a figure of accuracies and parameters.
An interrupted run goes on where it was. Tests are exact Wilcoxon signed-rank tests with Holm's correction over the
rows, at the level 0.05; with fewer than five seeds, or where the smallest p that could have come out is above the level
after the correction, the table says "underpowered".
"""

import argparse
import dataclasses
import sys
from pathlib import Path

from cl_ext.report.drawing.ablations import ablation_figure
from cl_ext.report.drawing.style import save
from cl_ext.report.statistics import Comparison, compare, summarize
from cl_ext.report.tables.texts import scenario_name
from cl_ext.study import Store, StudyError, run
from cl_ext.study.ablation import Ablation, accuracies, costs
from cl_ext.study.progress import progress_for
from cl_ext.study.reader import parse_seeds

from rich.console import Console


def table(ablation: Ablation, store: Store, scenario: str) -> str:
    """Returns the Markdown table of one scenario; accuracies in per cent, differences in points."""
    found = accuracies(ablation, store, scenario)
    comparisons = compare(found, ablation.reference)
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
        pair = comparisons[name].difference
        low, high = (100 * (pair.mean + sign * pair.half_width) for sign in (-1, 1))
        interval = f" [{low:+.2f}, {high:+.2f}]" if pair.n > 1 else ""
        difference = f"{100 * pair.mean:+.2f}{interval} | {pair.better:g} of {pair.n}"
        lines.append(f"| {name} | {mean} (n = {row.n}) | {difference} | {_shown(comparisons[name])} |")
    return "\n".join(lines)


def _shown(comparison: Comparison) -> str:
    """The corrected p and what it says; a word alone where no outcome could have shown anything."""
    if comparison.verdict in ("underpowered", "equal"):
        return comparison.verdict
    return f"{comparison.p_holm:.2g} ({comparison.verdict})"


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
    for scenario in ablation.scenarios:
        title = f"{ablation.name}, {scenario_name(scenario)}: {ablation.title}"
        found = accuracies(ablation, Store(out), scenario), costs(ablation, Store(out), scenario, "parameters")
        for path in save(ablation_figure(*found, ablation.reference, title), out / f"ablation-{scenario}"):
            print(f"written: {path}", file=sys.stderr)
    return 1 if summary.failed else 0


if __name__ == "__main__":
    sys.exit(main())
