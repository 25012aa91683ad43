"""The columns of a leaderboard: a column is an entry of one table, from which every writer takes what it needs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from cl_ext.metrics import METRICS, Metric

Detail = Literal["terminal", "paper", "report", "csv"]


@dataclass(frozen=True)
class Column:
    """One measured column.

    Attributes:
        key: its name in the tidy frame (`cost_relative` and `normalised_accuracy` are computed from it).
        title: its head in a table, with no unit.
        unit: the unit that its head shows; empty for none.
        formula: its definition as plain text.
        source: the paper or the record's field that it comes from.
        format: a finite value as text, in the unit; the half width of an interval is formatted alike.
        higher_is_better: the direction in which a method wins; None where nothing is marked as best.
        needs: what a cell or its board must have for the column to hold a number.
        interval: whether tables show the interval beside the mean.
        detail: the smallest table that shows it; the CSV has every column.
    """

    key: str
    title: str
    unit: str
    formula: str
    source: str
    format: Callable[[float], str]
    higher_is_better: bool | None
    needs: str
    interval: bool
    detail: Detail

    @property
    def head(self) -> str:
        """Title and unit."""
        return f"{self.title} [{self.unit}]" if self.unit else self.title


def percent(fraction: float) -> str:
    """A fraction in per cent with two decimals and no negative zero."""
    return f"{100 * fraction:z.2f}"


def seconds(value: float) -> str:
    """Seconds to three significant digits, with no exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def ratio(value: float) -> str:
    """A ratio with two decimals."""
    return f"{value:.2f}"


def count(value: float) -> str:
    """A whole number with thousands separated; a mean that is none keeps a decimal."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def size(value: float) -> str:
    """Bytes with a decimal prefix and three significant digits."""
    for prefix, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {prefix}B"
    return f"{value:.3g} B"


_DETAILS: dict[str, Detail] = {
    **dict.fromkeys(("accuracy", "average_incremental_accuracy", "forgetting"), "terminal"),
    "bwt": "paper",
    **dict.fromkeys(("remembering", "positive_backward_transfer", "windowed_plasticity", "learning_curve_area"), "csv"),
}
_NEEDS = {
    "iteration": "`evaluation: 1` in the study, and experiences of at least 10 batches",
    "curve": "test accuracies while training: `evaluation: epoch` or a number of iterations in the study",
    "reference": "a finished cell of `joint_incremental` at the same seed of the same board",
    "R": "an accuracy matrix that is defined where the formula looks, and two experiences where it looks at pairs",
}
"""By input, the one that is hardest to have first."""
_TWINS = {"task_aware": "task-aware", "task_agnostic": "task-agnostic"}


def _measure(metric: Metric, twin: str = "") -> Column:
    """A metric's column; `twin` names the matrix it is computed on, none for the scenario's own."""
    return Column(
        key=f"{metric.name}_{twin}" if twin else metric.name,
        title=f"{metric.title} ({_TWINS[twin]})" if twin else metric.title,
        unit="%",
        formula=metric.formula,
        source=metric.source,
        format=percent,
        higher_is_better=metric.higher_is_better,
        needs=next(needs for name, needs in _NEEDS.items() if name in metric.inputs),
        interval=True,
        detail="csv" if twin else _DETAILS.get(metric.name, "report"),
    )


def _cost(
    key: str,
    title: str,
    unit: str,
    formula: str,
    form: Callable[[float], str],
    detail: Detail = "csv",
    needs: str = "a record with `costs`, which older ones may lack in part",
) -> Column:
    """A cost's column: its mean, nothing marked as best, because the cheapest method is the one that does least."""
    return Column(key, title, unit, formula, "record: costs", form, None, needs, interval=False, detail=detail)


COLUMNS: tuple[Column, ...] = (
    *(_measure(metric) for metric in METRICS.values()),
    Column(
        key="normalised_accuracy",
        title="Normalised ACC",
        unit="%",
        formula="(ACC - ACC of naive) / (ACC of joint - ACC of naive), all at the same seed",
        source="after Agarwal et al. 2021 (human-normalised scores)",
        format=percent,
        higher_is_better=True,
        needs="finished cells of `naive` and `joint` at the same seed, joint training above fine-tuning",
        interval=True,
        detail="report",
    ),
    _cost(
        "cost_relative",
        "Cost",
        "x naive",
        "train_cpu_seconds / mean train_cpu_seconds of naive",
        ratio,
        "terminal",
        needs="a finished cell of `naive` in the board",
    ),
    _cost("cpu_seconds", "CPU time", "s", "CPU seconds of the whole cell", seconds, "report"),
    _cost(
        "extra_bytes",
        "Extra memory",
        "",
        "bytes the method keeps beside the network, and those that its network has grown by",
        size,
        "terminal",
    ),
    _cost("parameters", "Parameters", "", "parameters of the network at the end", count, "report"),
    _cost("parameters_nonzero", "Non-zero", "", "parameters of the network at the end that are not 0", count),
    _cost("steps", "Steps", "", "optimizer steps", count, "report"),
    _cost("train_cpu_seconds", "Training CPU time", "s", "CPU seconds in training", seconds),
    _cost("seconds", "Wall time", "s", "wall seconds of the whole cell", seconds),
    _cost("seconds_per_step", "Time a step", "s", "CPU seconds a training step", seconds),
    _cost("flops_per_step", "FLOPs a step", "", "floating-point operations a training step", count),
    *(_measure(metric, twin) for metric in METRICS.values() for twin in _TWINS),
)

_ORDER: tuple[Detail, ...] = ("terminal", "paper", "report", "csv")


def columns_for(detail: Detail) -> list[Column]:
    """The columns that a table of this detail may show, in order."""
    return [column for column in COLUMNS if _ORDER.index(column.detail) <= _ORDER.index(detail)]


def columns_named(keys: Iterable[str]) -> list[Column]:
    """The columns with these keys, in the order given.

    Raises:
        ValueError: a key is no column's.
    """
    known = {column.key: column for column in COLUMNS}
    wanted = list(keys)
    if unknown := [key for key in wanted if key not in known]:
        raise ValueError(f"there is no column {unknown[0]!r}; columns are {', '.join(known)}")
    return [known[key] for key in wanted]
