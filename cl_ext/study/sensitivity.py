"""A sweep of one hyper-parameter of one method: what the results of a study depend on it.

A sweep is a study of its own: the method's cells at every value, and beside them fine-tuning and joint training, all
on the study's stream, network, budget and seeds. Its cells are ordinary cells, so a store shares those that it has. A
sweep is measured on test data: it shows what a choice is worth, and `cl-ext tune` makes the choice.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from cl_ext.methods import METHODS
from cl_ext.study.cellspec import CellSpec
from cl_ext.study.document import StudyError
from cl_ext.study.frame import final_accuracy
from cl_ext.study.reader import method_problem
from cl_ext.study.spec import Study
from cl_ext.study.store import FINISHED, Store

REFERENCES = ("naive", "joint")


@dataclass(frozen=True)
class Sweep(Study):
    """The study of a sweep.

    Attributes:
        method: The method.
        hyperparameter: What is swept.
        grid: Its values, ascending.
        chosen: The study's own value by scenario.
    """

    kind: ClassVar[str] = "sweep"

    method: str = ""
    hyperparameter: str = ""
    grid: tuple[Any, ...] = ()
    chosen: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def rows(self, device: str = "cpu") -> dict[Any, list[CellSpec]]:
        """The cells of each row: the references by their names, the method's by value."""
        own = Study.cells(self, device)
        rows: dict[Any, list[CellSpec]] = {
            name: [cell for cell in own if cell.method == name] for name in self.methods if name != self.method
        }
        swept = [cell for cell in own if cell.method == self.method]
        for value in self.grid:
            rows[value] = [
                dataclasses.replace(cell, hyperparameters=dict(cell.hyperparameters) | {self.hyperparameter: value})
                for cell in swept
            ]
        return rows

    def cells(self, device: str = "cpu") -> list[CellSpec]:
        """See `Study.cells`."""
        each = [cell for cells in self.rows(device).values() for cell in cells]
        return sorted(each, key=lambda cell: cell.seed)


def sweep_of(
    study: Study,
    method: str,
    hyperparameter: str,
    grid: Sequence[float],
    scenarios: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> Sweep:
    """The sweep of a hyper-parameter over a study's setting.

    Args:
        study: The study; the method need not be one of its own.
        method: The method.
        hyperparameter: A number of its.
        grid: The values; whole numbers are rounded to where the hyper-parameter is one.
        scenarios: Only these of the study's.
        seeds: Other seeds than the study's.

    Raises:
        StudyError: There is no such method, hyper-parameter or scenario, or it does not take one of the values.
    """
    for scenario in scenarios or ():
        if scenario not in study.scenarios:
            raise StudyError(
                f"--scenarios: {scenario!r} is none of the study's, which are {', '.join(study.scenarios)}"
            )
    wanted = tuple(scenario for scenario in study.scenarios if scenarios is None or scenario in scenarios)
    problem = method_problem(method, wanted, study.network)
    if problem:
        raise StudyError(f"--method: {problem}")
    if method in REFERENCES:
        raise StudyError(f"--method is {method}, a reference that every sweep has beside it; it takes another")
    row = METHODS[method]
    numbers = [name for name, each in row.hyperparameters.items() if type(each.default) in (int, float)]
    if hyperparameter not in numbers:
        known = ", ".join(numbers) or "none"
        raise StudyError(f"--hyperparameter: {hyperparameter!r} is no number that {method} has; it has {known}")
    parameter = row.hyperparameters[hyperparameter]
    whole = type(parameter.default) is int
    try:
        values = sorted({parameter.check(hyperparameter, round(value) if whole else float(value)) for value in grid})
    except (ValueError, TypeError) as error:
        raise StudyError(f"--grid: {method}: {error}") from None
    able = tuple(scenario for scenario in wanted if scenario in row.scenarios)
    references = [name for name in REFERENCES if METHODS[name].problem(able, study.network) is None]
    chosen = {scenario: study.resolved(method, scenario)[hyperparameter] for scenario in able}
    part = dataclasses.replace(
        study,
        name=f"{study.name}-{method}-{hyperparameter}",
        title=f"{study.title}: sensitivity to {hyperparameter} of {method}",
        scenarios=able,
        methods=(*references, method),
        seeds=tuple(dict.fromkeys(seeds)) if seeds is not None else study.seeds,
        tuning={},
    )
    fields = {each.name: getattr(part, each.name) for each in dataclasses.fields(Study)}
    return Sweep(**fields, method=method, hyperparameter=hyperparameter, grid=tuple(values), chosen=chosen)


def parse_grid(text: str) -> tuple[float, ...]:
    """`1e-2:1e6:9`, so many values evenly spaced on a logarithmic scale, or a list such as `0,0.1,1`.

    Values that are powers of ten come out as they are written, so that their cells are those of other searches.

    Raises:
        StudyError: The text is neither.
    """
    try:
        if ":" not in text:
            values = tuple(float(part) for part in text.split(","))
            if not all(math.isfinite(value) for value in values):
                raise ValueError(text)
            return values
        low, high, points = text.split(":")
        return _logarithmic(float(low), float(high), int(points))
    except ValueError:
        raise StudyError(
            f"--grid is {text!r}; it takes FROM:TO:POINTS, two different numbers above 0 and a whole number of at "
            "least 2, such as 1e-2:1e6:9, or a list of numbers, such as 0,0.1,1"
        ) from None


def _logarithmic(low: float, high: float, points: int) -> tuple[float, ...]:
    if not (0 < low < math.inf and 0 < high < math.inf and low != high and points >= 2):
        raise ValueError(low, high, points)
    ends = math.log10(low), math.log10(high)
    step = (ends[1] - ends[0]) / (points - 1)
    return tuple(float(f"{10 ** (ends[0] + step * index):.6g}") for index in range(points))


@dataclass(frozen=True)
class Measured:
    """What a row of a sweep gave in one scenario.

    Attributes:
        row: A reference's name, or a value of the hyper-parameter.
        accuracies: A seed's final average accuracy in [0, 1] by the scenario's criterion; None where it is undefined.
        states: A seed's status; `missing` where its cell has no record.
    """

    row: Any
    accuracies: Mapping[int, float | None]
    states: Mapping[int, str]

    @property
    def known(self) -> dict[int, float]:
        """The accuracies of the seeds that have one."""
        return {seed: value for seed, value in self.accuracies.items() if value is not None}

    @property
    def gaps(self) -> dict[int, str]:
        """The seeds that have none, and why."""
        return {
            seed: "undefined" if state == FINISHED else state
            for seed, state in self.states.items()
            if self.accuracies[seed] is None
        }


def measured(sweep: Sweep, store: Store, scenario: str, device: str = "cpu") -> list[Measured]:
    """What a store has of a sweep in one scenario, the references first, then by value."""
    rows = []
    for row, cells in sweep.rows(device).items():
        records = {cell.seed: store.record(cell.run_id) for cell in cells if cell.scenario == scenario}
        accuracies = {seed: final_accuracy(record, scenario) for seed, record in records.items()}
        states = {seed: "missing" if record is None else str(record["status"]) for seed, record in records.items()}
        rows.append(Measured(row, accuracies, states))
    return rows


def parse_names(text: str) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(dict.fromkeys(re.split(r"\s*,\s*", text.strip())))
