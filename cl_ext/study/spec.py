"""A study: one stream, its scenarios, one network, one budget, the methods with their values, the seeds."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from cl_ext.methods import METHODS, Budget
from cl_ext.models import NetworkSpec
from cl_ext.streams.spec import StreamSpec
from cl_ext.study.cellspec import CellSpec
from cl_ext.study.document import Document, StudyError
from cl_ext.study.reader import Reader, find_file, method_problem

# Fields of a stream that are younger than the first records: at their default they are no part of a cell's description,
# so that ids stay.
_YOUNGER = {"normalise": True, "samples": None, "first": None}


@dataclass(frozen=True)
class Study:
    """A checked study.

    Attributes:
        name: Its name; records are found under it.
        version: A released study is never edited; a new version is a new file.
        title: One line for tables and figures.
        stream: The stream; its scenario and seed are the cells' business.
        scenarios: In which it is run.
        network: The network.
        budget: The training budget.
        budgets: By method, the budgets of those whose optimizer is set otherwise.
        evaluation: `experience`, `epoch`, or a number of iterations.
        seeds: The seeds.
        methods: Names of the rows, in the study's order.
        values: Hyper-parameters by method; a value may be a mapping of scenario to value.
        tuning: How the values were chosen, by method and scenario (see `origins.tuning_of`).
        files: A user's own data by content checksum.
        path: Where the study was read from.
        listed: The methods of the study as it was read, where `with_selection` has chosen others.
    """

    kind: ClassVar[str] = "study"
    """What its cells are for: `study`, `search`, `sweep` or `ablation`; only studies are summed up across boards."""

    name: str
    version: int
    title: str
    stream: StreamSpec
    scenarios: tuple[str, ...]
    network: NetworkSpec
    budget: Budget
    evaluation: str | int
    seeds: tuple[int, ...]
    methods: tuple[str, ...]
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    tuning: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    path: Path | None = None
    listed: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: Path | str, data_root: Path | str | None = None) -> "Study":
        """Reads and checks a YAML file.

        Args:
            path: The file.
            data_root: Where a user's own data file is looked for too.

        Raises:
            StudyError: Anything is wrong with it; the message is one sentence with the line and what is allowed.
        """
        path = Path(path)
        return cls(**Reader(Document.load(path), path, Path(data_root) if data_root else None).fields())

    def with_selection(self, methods: Sequence[str] | None = None, seeds: Sequence[int] | None = None) -> "Study":
        """The same study with other methods or seeds, as `--methods` and `--seeds` ask.

        Raises:
            StudyError: An unknown method, or one that can do none of the study's scenarios.
        """
        study = self
        if methods is not None:
            for name in methods:
                problem = method_problem(name, self.scenarios, self.network)
                if problem:
                    raise StudyError(f"--methods: {problem}")
            listed = self.listed or self.methods
            study = dataclasses.replace(study, methods=tuple(dict.fromkeys(methods)), listed=listed)
        if seeds is not None:
            study = dataclasses.replace(study, seeds=tuple(dict.fromkeys(seeds)))
        return study

    def with_dataset(self, dataset: str, data_root: Path | str | None = None) -> "Study":
        """The same study on another data set, as `--dataset` asks; its records go by a name of their own.

        Args:
            dataset: A name, or a user's own `.npz`.
            data_root: Where a file is looked for too.

        Raises:
            StudyError: There is no such data set, or it does not make the study's stream.
        """
        files: dict[str, Path] = {}
        label = Path(dataset).stem
        if dataset.endswith(".npz"):
            checksum, path = find_file(dataset, [Path(), *([Path(data_root)] if data_root else [])])
            files, dataset = {checksum: path}, str(path)
        stream = dataclasses.replace(self.stream, dataset=dataset)
        try:
            for scenario in self.scenarios:
                dataclasses.replace(stream, scenario=scenario).validate()
        except (ValueError, TypeError) as error:
            raise StudyError(f"--dataset: {error}") from None
        title = f"{self.title}, on {label}"
        return dataclasses.replace(self, name=f"{self.name}-{label}", title=title, stream=stream, files=files)

    def cells(self, device: str = "cpu") -> list[CellSpec]:
        """All cells, seeds outermost, so that an interrupted study has complete seeds."""
        stream = self.stream_fields()
        return [
            CellSpec(
                stream=stream,
                scenario=scenario,
                network=self.network.to_dict(),
                budget=self.budgets.get(name, self.budget).to_dict(),
                evaluation=self.evaluation,
                device=device,
                method=name,
                revision=METHODS[name].revision,
                hyperparameters=self.resolved(name, scenario),
                seed=seed,
            )
            for seed in self.seeds
            for scenario in self.scenarios
            for name in self.methods
            if scenario in METHODS[name].scenarios
        ]

    def resolved(self, method: str, scenario: str) -> dict[str, Any]:
        """A method's hyper-parameters in a scenario: the study's values, the rest by the row's defaults."""
        given = {
            name: value[scenario] if isinstance(value, Mapping) else value
            for name, value in self.values.get(method, {}).items()
            if not isinstance(value, Mapping) or scenario in value
        }
        return METHODS[method].resolve(given)

    def stream_fields(self) -> dict[str, Any]:
        """The stream as a cell's description has it: no scenario, no seed, a checksum in the place of a path."""
        fields = dataclasses.asdict(self.stream)
        for unwanted in ("scenario", "seed"):
            fields.pop(unwanted)
        for name, default in _YOUNGER.items():
            if fields[name] == default:
                del fields[name]
        by_path = {str(path): checksum for checksum, path in self.files.items()}
        dataset = fields["dataset"]
        if isinstance(dataset, str):
            fields["dataset"] = by_path.get(dataset, dataset)
        else:
            fields["dataset"] = [by_path.get(name, name) for name in dataset]
        return fields

    def stream_label(self) -> str:
        """The stream for people: `split digits`, `concat mnist+usps`."""
        names = [self.stream.dataset] if isinstance(self.stream.dataset, str) else list(self.stream.dataset)
        short = [Path(name).stem if name.endswith(".npz") else name for name in names]
        return f"{self.stream.name} {'+'.join(short)}"
