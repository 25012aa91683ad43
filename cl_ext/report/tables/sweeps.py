"""A sweep as a Markdown table: value, mean, interval, every seed; what did not finish stands where it belongs."""

from collections.abc import Sequence

from cl_ext.report.statistics import FEW_SEEDS, summarize
from cl_ext.study.sensitivity import Measured, Sweep


def sweep_table(sweep: Sweep, rows: Sequence[Measured], scenario: str) -> str:
    """The table of one scenario, accuracies in per cent.

    Args:
        sweep: The sweep.
        rows: What its rows gave, as `cl_ext.study.sensitivity.measured` tells.
        scenario: The scenario.

    Returns:
        Markdown: the references first, the study's own value in bold. A mean is over the seeds that finished, with
        their number; the others stand among the seeds with what became of them.
    """
    seeds = list(sweep.seeds)
    lines = [
        f"{sweep.name}, {scenario}-incremental: final average accuracy in %, mean ± half of the 95 % t-interval",
        "",
        f"| {sweep.hyperparameter} of {sweep.method} | accuracy | n | " + " | ".join(f"seed {s}" for s in seeds) + " |",
        "|---|---|---|" + "---|" * len(seeds),
    ]
    for each in rows:
        name = f"`{each.row}`" if isinstance(each.row, str) else f"{each.row:g}"
        if each.row == sweep.chosen.get(scenario):
            name = f"**{name}**"
        summary = summarize([100 * value for value in each.known.values()])
        mean = "-" if not summary.n else f"{summary.mean:.2f}"
        if summary.n > 1:
            mean += f" ± {summary.half_width:.2f}"
        n = f"{summary.n}" if summary.n == len(seeds) else f"{summary.n} of {len(seeds)}"
        cells = [each.gaps[seed] if seed in each.gaps else f"{100 * each.known[seed]:.2f}" for seed in seeds]
        lines.append(f"| {name} | {mean} | {n} | " + " | ".join(cells) + " |")
    value = sweep.chosen.get(scenario)
    if value not in sweep.grid:
        lines += ["", f"The study's own value, {value:g}, is none of the grid."]
    if len(seeds) < FEW_SEEDS:
        lines += ["", f"Fewer than {FEW_SEEDS} seeds: look at the seeds, not at the intervals."]
    return "\n".join(lines)
