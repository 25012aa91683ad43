"""A search of hyper-parameters on held-out training data and on seeds that the study does not report.

The search is a study of its own: same stream, network and budget, with a part of the training data in place of the test
data. Its cells lie in a store as any cells do, so an interrupted search goes on where it was.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from cl_ext.methods import METHODS
from cl_ext.study.cellspec import CellSpec
from cl_ext.study.frame import final_accuracy
from cl_ext.study.protocol import Protocol, check_names, first_experiences, grid_values, tuned_names
from cl_ext.study.runner import Progress, Summary, run
from cl_ext.study.span import Span, check_sampler
from cl_ext.study.spec import Study, StudyError
from cl_ext.study.store import FAILURES, FINISHED, Store

Group = tuple[str, str]  # method, scenario
Point = tuple[tuple[int, ...], Mapping[str, Any]]  # a setting's place among the others, its values
EQUAL = 0.001  # a tenth of a point: settings nearer to the best than this are equal


@dataclass(frozen=True)
class Setting:
    """One point of a method's grid in one scenario.

    Attributes:
        values: The tuned hyper-parameters, the strength first.
        place: The index of each value in its sorted grid.
        cells: One a tuning seed.
    """

    method: str
    scenario: str
    values: Mapping[str, Any]
    place: tuple[int, ...]
    cells: tuple[CellSpec, ...]


@dataclass(frozen=True)
class Search(Study):
    """The study of a search: its cells are the settings', seeds outermost."""

    kind: ClassVar[str] = "search"

    settings: tuple[Setting, ...] = ()
    spans: Mapping[tuple[str, str], Span] = field(default_factory=dict)

    def cells(self, device: str = "cpu") -> list[CellSpec]:
        """See `Study.cells`."""
        by_seed = zip(*(setting.cells for setting in self.settings), strict=True)
        return [dataclasses.replace(cell, device=device) for cells in by_seed for cell in cells]


@dataclass(frozen=True)
class Tried:
    """A setting and what its cells gave.

    Attributes:
        setting: The setting.
        states: A seed's status; None where its cell has no record.
        accuracies: A seed's final average accuracy in [0, 1] by the scenario's criterion; None where undefined.
    """

    setting: Setting
    states: Mapping[int, str | None]
    accuracies: Mapping[int, float | None]

    @property
    def mean(self) -> float | None:
        """The mean over the seeds; None where one did not finish: such a setting is never chosen."""
        known = [accuracy for accuracy in self.accuracies.values() if accuracy is not None]
        return sum(known) / len(known) if len(known) == len(self.accuracies) else None

    @property
    def failure(self) -> str | None:
        """What became of the first seed that did not finish."""
        return next((state or "missing" for state in self.states.values() if state != FINISHED), None)


@dataclass(frozen=True)
class Found:
    """What a search found of one method in one scenario.

    Attributes:
        tried: All settings, in the grid's order.
        chosen: The best of them; None where none finished.
        edges: The tuned hyper-parameters whose chosen value is at an end of what was searched.
        spans: What a sampler drew them from; empty where all of a grid was tried.
    """

    method: str
    scenario: str
    tried: tuple[Tried, ...]
    chosen: Tried | None
    edges: tuple[str, ...]
    spans: Mapping[str, Span] = field(default_factory=dict)

    def ends(self, name: str) -> tuple[Any, Any]:
        """The ends of what was searched of a number, whether a sampler tried them or not."""
        if name in self.spans:
            return self.spans[name].low, self.spans[name].high
        values = [tried.setting.values[name] for tried in self.tried]
        return min(values), max(values)


def base_of(study: Study, protocol: Protocol) -> tuple[Study, dict[str, tuple[str, ...]]]:
    """The study that a search varies, on held-out data, and what is tuned of each of its methods.

    Raises:
        StudyError: The protocol asks for what the study, its methods or its stream do not have.
    """
    reported = [seed for seed in protocol.seeds if seed in study.seeds]
    if reported:
        raise StudyError(f"--seeds: {reported[0]} is a seed that the study reports; tune on seeds that it does not")
    if not 0 < protocol.validation < 1:
        raise StudyError(f"--validation is {protocol.validation:g}; it takes a fraction above 0 and below 1")
    check_sampler(protocol)
    for scenario in protocol.scenarios or ():
        if scenario not in study.scenarios:
            known = ", ".join(study.scenarios)
            raise StudyError(f"--scenarios: {scenario!r} is none of the study's, which are {known}")
    stream = study.stream if protocol.experiences is None else first_experiences(study.stream, protocol.experiences)
    part = dataclasses.replace(
        study,
        name=f"{study.name}-tune",
        title=f"{study.title}: the search of its values",
        stream=dataclasses.replace(stream, validation=protocol.validation),
        scenarios=protocol.scenarios or study.scenarios,
        tuning={},
    ).with_selection(protocol.methods, protocol.seeds)
    able = [method for method in part.methods if set(METHODS[method].scenarios) & set(part.scenarios)]
    names = {method: tuned_names(method, protocol) for method in able}
    check_names(protocol, names)
    return dataclasses.replace(part, methods=tuple(method for method, tuned in names.items() if tuned)), names


def search_of(study: Study, protocol: Protocol, device: str = "cpu") -> Search:
    """The search of a study over a grid.

    Raises:
        StudyError: The protocol asks for what the study, its methods or its stream do not have.
    """
    part, names = base_of(study, protocol)
    points: dict[Group, list[Point]] = {}
    for method in part.methods:
        grids = [list(enumerate(grid_values(method, name, protocol))) for name in names[method]]
        points |= {
            (method, scenario): [
                (tuple(index for index, _ in point), {n: v for n, (_, v) in zip(names[method], point, strict=True)})
                for point in itertools.product(*grids)
            ]
            for scenario in part.scenarios
        }
    return search_with(part, points, {}, device)


def search_with(
    part: Study, points: Mapping[Group, Sequence[Point]], spans: Mapping[tuple[str, str], Span], device: str = "cpu"
) -> Search:
    """The search of given settings.

    Args:
        part: The study that they vary.
        points: The settings by method and scenario.
        spans: What a sampler draws from, by method and hyper-parameter.
        device: `cpu` or `cuda`.
    """
    cells: dict[tuple[Group, tuple[int, ...]], list[CellSpec]] = {}
    values: dict[tuple[Group, tuple[int, ...]], Mapping[str, Any]] = {}
    for cell in part.cells(device):
        group = cell.method, cell.scenario
        for place, setting in points[group]:
            changed = dataclasses.replace(cell, hyperparameters=dict(cell.hyperparameters) | dict(setting))
            cells.setdefault((group, place), []).append(changed)
            values[group, place] = setting
    fields = {each.name: getattr(part, each.name) for each in dataclasses.fields(Study)}
    settings = [Setting(*group, values[group, place], place, tuple(own)) for (group, place), own in cells.items()]
    return Search(**fields, settings=tuple(settings), spans=spans)


def read(search: Search, store: Store) -> list[Found]:
    """What a store has of a search, by method and scenario in the study's order."""
    groups: dict[tuple[str, str], list[Tried]] = {}
    for setting in search.settings:
        records = {cell.seed: store.record(cell.run_id) for cell in setting.cells}
        tried = Tried(
            setting,
            {seed: None if record is None else str(record["status"]) for seed, record in records.items()},
            {seed: final_accuracy(record, setting.scenario) for seed, record in records.items()},
        )
        groups.setdefault((setting.method, setting.scenario), []).append(tried)
    found = []
    for method, scenario in itertools.product(search.methods, search.scenarios):
        group = groups.get((method, scenario), [])
        if not group:
            continue
        best = choose(group)
        spans = {name: span for (owner, name), span in search.spans.items() if owner == method}
        edges = () if best is None else _edges(group, best, spans)
        found.append(Found(method, scenario, tuple(group), best, edges, spans))
    return found


def choose(group: Sequence[Tried]) -> Tried | None:
    """The setting of the best mean; of those within a tenth of a point of it the first, the smallest strength first."""
    known = [(tried, tried.mean) for tried in group]
    means = [mean for _, mean in known if mean is not None]
    equal = [tried for tried, mean in known if mean is not None and mean >= max(means) - EQUAL - 1e-9]
    return min(equal, key=lambda tried: tried.setting.place, default=None)


def _edges(group: Sequence[Tried], best: Tried, spans: Mapping[str, Span]) -> tuple[str, ...]:
    """Where a wider grid might hold a better value: not at the end of what the hyper-parameter allows."""
    edges = []
    for index, (name, value) in enumerate(best.setting.values.items()):
        parameter = METHODS[best.setting.method].hyperparameters[name]
        last = max(tried.setting.place[index] for tried in group)
        span = spans.get(name)
        extreme = best.setting.place[index] in (0, last) if span is None else span.at_edge(value)
        ends = last > 0 and extreme and type(parameter.default) in (int, float)
        if ends and value not in (parameter.low, parameter.high):
            edges.append(name)
    return tuple(edges)


def tune(
    study: Study,
    protocol: Protocol,
    out: Path | str,
    *,
    workers: int | None = None,
    device: str = "cpu",
    data_root: Path | str | None = None,
    retry_failed: bool = False,
    time_limit: float | None = None,
    progress: Progress | None = None,
) -> tuple[list[Found], Summary]:
    """Runs what is left of a search and chooses; the other arguments are `run`'s.

    Raises:
        StudyError: See `search_of` and `run`; or another launcher still runs some of the cells.
    """

    def settled(search: Search) -> tuple[list[Found], Summary]:
        summary = run(
            search, out, workers=workers, device=device, data_root=data_root, retry_failed=retry_failed,
            time_limit=time_limit, progress=progress,
        )  # fmt: skip
        missing = sum(count for state, count in summary.states.items() if state not in (FINISHED, *FAILURES))
        if missing:
            raise StudyError(f"{missing} cells are another launcher's; nothing is chosen before they are done")
        return read(search, Store(out)), summary

    if protocol.sampler == "grid":
        return settled(search_of(study, protocol, device))
    base_of(study, protocol)  # what is wrong with the options is said before what is not installed
    from cl_ext.study.sampled import Sampled

    sampled = Sampled(study, protocol, Path(out), device)
    while True:
        found, summary = settled(sampled.search())
        if not sampled.tell(found):
            return found, summary
