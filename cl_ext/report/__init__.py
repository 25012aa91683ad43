"""Tables and figures from records; needs neither torch nor Avalanche.

The names load where they are first used, so that importing the package costs neither pandas nor seaborn. No module here
bears the name of a function that the package exports: importing such a module would hide the function.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cl_ext.report.across_boards import across
    from cl_ext.report.across_plots import improvement_across, intervals_across, profiles_across, ranks_across
    from cl_ext.report.aggregate import leaderboard
    from cl_ext.report.bibliography import to_bibtex
    from cl_ext.report.exports import to_csv, to_parquet, write_leaderboard
    from cl_ext.report.heatmaps import accuracy_differences, accuracy_matrices
    from cl_ext.report.improvement import improvement_probabilities
    from cl_ext.report.interval_plot import accuracy_intervals
    from cl_ext.report.latex import to_latex
    from cl_ext.report.markdown import to_markdown
    from cl_ext.report.networks import growth_by_task, parameters_over_the_stream, unit_maps
    from cl_ext.report.outside import read_outside
    from cl_ext.report.over_stream import (
        accuracy_over_the_stream,
        forgetting_by_experience,
        learning_curves,
        memory_over_the_stream,
    )
    from cl_ext.report.overlay import learning_together
    from cl_ext.report.plasticity import stability_plasticity
    from cl_ext.report.plots import figures
    from cl_ext.report.profiles import performance_profiles
    from cl_ext.report.ranking import rank_over_the_stream
    from cl_ext.report.stability import stability_gaps
    from cl_ext.report.strengths import strength_sensitivity
    from cl_ext.report.terminal import terminal_table
    from cl_ext.report.tradeoffs import accuracy_against_cost, accuracy_against_memory, accuracy_against_parameters
    from cl_ext.report.web import to_html

_HOMES = {
    "accuracy_against_cost": "tradeoffs",
    "accuracy_against_memory": "tradeoffs",
    "accuracy_against_parameters": "tradeoffs",
    "accuracy_differences": "heatmaps",
    "accuracy_intervals": "interval_plot",
    "accuracy_matrices": "heatmaps",
    "accuracy_over_the_stream": "over_stream",
    "across": "across_boards",
    "figures": "plots",
    "forgetting_by_experience": "over_stream",
    "growth_by_task": "networks",
    "improvement_across": "across_plots",
    "improvement_probabilities": "improvement",
    "intervals_across": "across_plots",
    "leaderboard": "aggregate",
    "learning_curves": "over_stream",
    "learning_together": "overlay",
    "memory_over_the_stream": "over_stream",
    "parameters_over_the_stream": "networks",
    "performance_profiles": "profiles",
    "profiles_across": "across_plots",
    "rank_over_the_stream": "ranking",
    "ranks_across": "across_plots",
    "read_outside": "outside",
    "stability_gaps": "stability",
    "stability_plasticity": "plasticity",
    "strength_sensitivity": "strengths",
    "terminal_table": "terminal",
    "to_bibtex": "bibliography",
    "to_csv": "exports",
    "to_html": "web",
    "to_latex": "latex",
    "to_markdown": "markdown",
    "to_parquet": "exports",
    "unit_maps": "networks",
    "write_leaderboard": "exports",
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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
