"""All that tables show, summed up once: the leaderboard, its gaps, the view across boards, the budgets."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from cl_ext.report.rows.across_boards import Across, across_rows
from cl_ext.report.rows.aggregate import leaderboard
from cl_ext.report.rows.budgets import ladder
from cl_ext.report.rows.cells import prepare
from cl_ext.report.rows.gaps import Asked, disagreeing_cells, failed_cells, missing_cells

import pandas as pd


@dataclass(frozen=True)
class Results:
    """What a frame says, each part worked out when it is first asked for, and once.

    Attributes:
        frame: the tidy frame, a row a cell.
        methods: method -> the scenarios it can do (see `leaderboard`).
        asked: what the studies ask for (see `cl_ext.report.rows.gaps.asked_of`).
        outside: results of others (see `cl_ext.report.rows.outside.read_outside`).
    """

    frame: pd.DataFrame
    methods: Mapping[str, Collection[str]] | None = None
    asked: Asked | None = None
    outside: pd.DataFrame | None = None

    @cached_property
    def cells(self) -> pd.DataFrame:
        """The cells, ready to be summed up."""
        return prepare(self.frame)

    @cached_property
    def table(self) -> pd.DataFrame:
        """The leaderboard."""
        return leaderboard(self.frame, self.methods, asked=self.asked, outside=self.outside)

    @cached_property
    def failed(self) -> pd.DataFrame:
        """The cells that did not finish."""
        return failed_cells(self.frame)

    @cached_property
    def disagreeing(self) -> pd.DataFrame:
        """The cells of which stores hold different results."""
        return disagreeing_cells(self.frame)

    @cached_property
    def missing(self) -> pd.DataFrame:
        """The cells that should be there."""
        return missing_cells(self.frame, self.methods, self.asked)

    @cached_property
    def across(self) -> list[Across]:
        """Methods across all boards, and across those of each scenario where there are several scenarios."""
        scenarios = sorted(self.table["scenario"].unique())
        kinds = ["", *(scenarios if len(scenarios) > 1 else [])]
        return [across_rows(self.table, self.cells, kind) for kind in kinds]

    @cached_property
    def budgets(self) -> pd.DataFrame:
        """The best row under each budget (see `cl_ext.report.rows.budgets.ladder`)."""
        return ladder(self.table, self.cells)
