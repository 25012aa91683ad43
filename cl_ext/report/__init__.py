"""Tables and figures from records; needs neither torch nor Avalanche.

The names load where they are first used, so that importing the package costs neither pandas nor seaborn. No module here
bears the name of a function that the package exports: importing such a module would hide the function.
"""

from typing import TYPE_CHECKING

from cl_ext._lazy import lazy

if TYPE_CHECKING:
    from cl_ext.report.drawing.across_plots import improvement_across, intervals_across, profiles_across, ranks_across
    from cl_ext.report.drawing.heatmaps import accuracy_differences, accuracy_matrices
    from cl_ext.report.drawing.improvement import improvement_probabilities
    from cl_ext.report.drawing.interval_plot import accuracy_intervals
    from cl_ext.report.drawing.networks import growth_by_task, parameters_over_the_stream, unit_maps
    from cl_ext.report.drawing.over_stream import (
        accuracy_over_the_stream,
        forgetting_by_experience,
        learning_curves,
        memory_over_the_stream,
    )
    from cl_ext.report.drawing.overlay import learning_together
    from cl_ext.report.drawing.plasticity import stability_plasticity
    from cl_ext.report.drawing.plots import figures
    from cl_ext.report.drawing.profiles import performance_profiles
    from cl_ext.report.drawing.ranking import rank_over_the_stream
    from cl_ext.report.drawing.stability import stability_gaps
    from cl_ext.report.drawing.strengths import strength_sensitivity
    from cl_ext.report.drawing.tradeoffs import (
        accuracy_against_cost,
        accuracy_against_memory,
        accuracy_against_parameters,
    )
    from cl_ext.report.rows.across_boards import across
    from cl_ext.report.rows.aggregate import leaderboard
    from cl_ext.report.rows.outside import read_outside
    from cl_ext.report.tables.exports import to_csv, to_parquet, write_leaderboard
    from cl_ext.report.tables.latex import to_latex
    from cl_ext.report.tables.markdown import to_markdown
    from cl_ext.report.tables.terminal import terminal_table
    from cl_ext.report.web.bibliography import to_bibtex
    from cl_ext.report.web.page import to_html

_HOMES = {
    "accuracy_against_cost": "drawing.tradeoffs",
    "accuracy_against_memory": "drawing.tradeoffs",
    "accuracy_against_parameters": "drawing.tradeoffs",
    "accuracy_differences": "drawing.heatmaps",
    "accuracy_intervals": "drawing.interval_plot",
    "accuracy_matrices": "drawing.heatmaps",
    "accuracy_over_the_stream": "drawing.over_stream",
    "across": "rows.across_boards",
    "figures": "drawing.plots",
    "forgetting_by_experience": "drawing.over_stream",
    "growth_by_task": "drawing.networks",
    "improvement_across": "drawing.across_plots",
    "improvement_probabilities": "drawing.improvement",
    "intervals_across": "drawing.across_plots",
    "leaderboard": "rows.aggregate",
    "learning_curves": "drawing.over_stream",
    "learning_together": "drawing.overlay",
    "memory_over_the_stream": "drawing.over_stream",
    "parameters_over_the_stream": "drawing.networks",
    "performance_profiles": "drawing.profiles",
    "profiles_across": "drawing.across_plots",
    "rank_over_the_stream": "drawing.ranking",
    "ranks_across": "drawing.across_plots",
    "read_outside": "rows.outside",
    "stability_gaps": "drawing.stability",
    "stability_plasticity": "drawing.plasticity",
    "strength_sensitivity": "drawing.strengths",
    "terminal_table": "tables.terminal",
    "to_bibtex": "web.bibliography",
    "to_csv": "tables.exports",
    "to_html": "web.page",
    "to_latex": "tables.latex",
    "to_markdown": "tables.markdown",
    "to_parquet": "tables.exports",
    "unit_maps": "drawing.networks",
    "write_leaderboard": "tables.exports",
}

__all__ = [
    "accuracy_against_cost",
    "accuracy_against_memory",
    "accuracy_against_parameters",
    "accuracy_differences",
    "accuracy_intervals",
    "accuracy_matrices",
    "accuracy_over_the_stream",
    "across",
    "figures",
    "forgetting_by_experience",
    "growth_by_task",
    "improvement_across",
    "improvement_probabilities",
    "intervals_across",
    "leaderboard",
    "learning_curves",
    "learning_together",
    "memory_over_the_stream",
    "parameters_over_the_stream",
    "performance_profiles",
    "profiles_across",
    "rank_over_the_stream",
    "ranks_across",
    "read_outside",
    "stability_gaps",
    "stability_plasticity",
    "strength_sensitivity",
    "terminal_table",
    "to_bibtex",
    "to_csv",
    "to_html",
    "to_latex",
    "to_markdown",
    "to_parquet",
    "unit_maps",
    "write_leaderboard",
]

__getattr__ = lazy(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
