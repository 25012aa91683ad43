"""An ablation: variants of methods, each a row with some hyper-parameters set otherwise, beside a study's own rows.

    ablation: sim_ema                          # its name; records go by it
    study: ../rotated_mnist_clusters.yaml      # stream, network, budget, seeds, values; relative to this file
    reference: clser                           # what every other row is compared with, seed by seed
    methods: [er, clser]                       # the study's rows as they are, by default all of them
    variants:
      constant weight: {method: sim_ema, phi: const}

A variant's values are laid over the study's values of its method. Its cells are ordinary cells, so a store shares those
that it already has.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from cl_ext.methods import METHODS
from cl_ext.study.cellspec import CellSpec
from cl_ext.study.document import Document
from cl_ext.study.frame import final_accuracy
from cl_ext.study.reader import method_problem
from cl_ext.study.spec import Study
from cl_ext.study.store import Store

_KEYS = ("ablation", "study", "reference", "methods", "variants")


@dataclass(frozen=True)
class Ablation(Study):
    """A study whose cells are those of its rows and variants.

    Attributes:
        reference: The row or variant that the others are compared with.
        variants: By name, the method and what is set otherwise.
    """

    kind: ClassVar[str] = "ablation"

    reference: str = ""
    variants: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path | str, data_root: Path | str | None = None) -> "Ablation":
        """Reads and checks an ablation's file and its study's.

        Raises:
            StudyError: Anything is wrong with one of them; one sentence with the line and what is allowed.
        """
        path = Path(path)
        document = Document.load(path)
        document.check_keys((), _KEYS)
        for key in ("ablation", "study", "reference", "variants"):
            if document.at((key,)) is None:
                raise document.error((), f"{key} is missing; an ablation has {', '.join(_KEYS)}")
        study = Study.load(path.parent / str(document.at(("study",))), data_root)
        asked = document.at(("methods",))
        if asked is not None:
            if not isinstance(asked, list) or not all(isinstance(name, str) for name in asked):
                raise document.error(("methods",), f"methods is {asked!r}; it takes a list of the study's methods")
            study = study.with_selection(asked)
        variants = _variants(document, study)
        reference = document.at(("reference",))
        known = [*study.methods, *variants]
        if reference not in known:
            raise document.error(("reference",), f"reference is {reference!r}; it takes one of {', '.join(known)}")
        fields = {each.name: getattr(study, each.name) for each in dataclasses.fields(Study)}
        name = str(document.at(("ablation",)))
        return cls(**fields | {"name": name, "path": path}, reference=reference, variants=variants)

    def rows(self, device: str = "cpu") -> dict[str, list[CellSpec]]:
        """The cells of each row by its name: the study's methods, then the variants; one a seed and scenario."""
        own = super().cells(device)
        rows = {method: [cell for cell in own if cell.method == method] for method in self.methods}
        for name, (method, values) in self.variants.items():
            alone = dataclasses.replace(self, methods=(method,))
            rows[name] = [
                dataclasses.replace(cell, hyperparameters=METHODS[method].resolve({**cell.hyperparameters, **values}))
                for cell in Study.cells(alone, device)
            ]
        return rows

    def cells(self, device: str = "cpu") -> list[CellSpec]:
        """See `Study.cells`; a variant that equals another row has its cells once."""
        each = [cell for cells in self.rows(device).values() for cell in cells]
        return sorted({cell.run_id: cell for cell in each}.values(), key=lambda cell: cell.seed)


def _variants(document: Document, study: Study) -> dict[str, tuple[str, Mapping[str, Any]]]:
    given = document.at(("variants",))
    if not isinstance(given, dict) or not given:
        raise document.error(
            ("variants",), f"variants is {given!r}; it takes a mapping of names to a method and values"
        )
    variants: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for name, values in given.items():
        key = ("variants", name)
        if name in study.methods:
            raise document.error(key, f"the variant {name} has the name of one of the study's methods")
        if not isinstance(values, dict) or not isinstance(values.get("method"), str):
            raise document.error(key, f"the variant {name} is {values!r}; it takes a method and its values")
        method = values["method"]
        problem = method_problem(method, study.scenarios, study.network)
        if problem:
            raise document.error(key, f"the variant {name}: {problem}")
        own = {hp: value for hp, value in values.items() if hp != "method"}
        try:
            METHODS[method].resolve(own)
        except (ValueError, TypeError) as error:
            raise document.error(key, f"the variant {name}: {error}") from None
        variants[name] = (method, own)
    return variants


def accuracies(ablation: Ablation, store: Store, scenario: str) -> dict[str, dict[int, float]]:
    """Final average accuracies by row and seed, in [0, 1] by the scenario's own criterion; finished cells only."""
    return _by_row(ablation, store, scenario, lambda record: final_accuracy(record, scenario))


def costs(ablation: Ablation, store: Store, scenario: str, name: str) -> dict[str, dict[int, float]]:
    """One of the record's costs ("parameters") by row and seed; finished cells that have it only."""
    return _by_row(ablation, store, scenario, lambda record: ((record or {}).get("costs") or {}).get(name))


def _by_row(
    ablation: Ablation, store: Store, scenario: str, read: Callable[[Mapping[str, Any] | None], float | None]
) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for name, cells in ablation.rows().items():
        own = [cell for cell in cells if cell.scenario == scenario]
        values = {cell.seed: read(store.record(cell.run_id)) for cell in own}
        found[name] = {seed: float(value) for seed, value in values.items() if value is not None}
    return found
