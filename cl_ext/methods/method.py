"""What a row of the comparison is; imports neither torch nor Avalanche.

A row says what a method is, where its code comes from, in which scenarios it runs, its hyper-parameters with defaults
and search ranges, what it stores beside the network, and which faults of its implementation are known. `build` names
the function that equips a strategy; it is imported where a cell runs.
"""

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from cl_ext.models.spec import HEADS, NETWORKS, NetworkSpec

ENTRY_POINT_GROUP = "cl_ext.methods"
SCENARIOS = ("task", "domain", "class")


@dataclass(frozen=True)
class HyperParameter:
    """One hyper-parameter of a method.

    Attributes:
        default: The value where a study gives none; its type is the type that a study must give.
        search: The values that a search tries, in order (strengths over six decades and more).
        low: Smallest allowed value of a number.
        high: Largest allowed value of a number.
        choices: The allowed values of a string.
        note: What it is, in a few words.
    """

    default: Any
    search: tuple[Any, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    note: str = ""

    def check(self, name: str, value: Any) -> Any:
        """Returns `value` in the parameter's own type, or raises one sentence.

        Raises:
            TypeError: `value` is of another type than the default.
            ValueError: `value` is outside the range or not one of the choices.
        """
        kind = type(self.default)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise TypeError(f"{name} is {value!r}; it takes {_KINDS.get(kind, kind.__name__)}")
        if self.choices and value not in self.choices:
            raise ValueError(f"{name} is {value!r}; it can be one of {', '.join(self.choices)}")
        if kind in (int, float) and not (self.low <= value <= self.high and math.isfinite(value)):
            raise ValueError(f"{name} is {value!r}; it takes {self.allowed}")
        return value

    @property
    def allowed(self) -> str:
        """The allowed values, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        words = _KINDS.get(type(self.default), type(self.default).__name__)
        if math.isfinite(self.low) and math.isfinite(self.high):
            return f"{words} from {self.low:g} to {self.high:g}"
        if math.isfinite(self.low):
            return f"{words} of at least {self.low:g}"
        return words


_KINDS = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}


def strength(default: float, low_exponent: int, high_exponent: int, note: str) -> HyperParameter:
    """A regulariser's strength, searched over every decade from 10^low to 10^high."""
    decades = tuple(10.0**exponent for exponent in range(low_exponent, high_exponent + 1))
    return HyperParameter(default, search=decades, low=0.0, note=note)


@dataclass(frozen=True)
class Method:
    """A row of the comparison.

    Attributes:
        name: What users type. A name never changes its meaning.
        source: `avalanche` or `cl_ext`, or a third party's package.
        paper: Where the method comes from.
        cites: The BibTeX keys of its papers (`cl_ext/references.bib`); a third party's row may leave them out.
        revision: Bumped when a change of code moves numbers; older records are then stale.
        scenarios: The scenarios in which it runs.
        needs_task_label: Whether it needs the task label at test time; its task-agnostic accuracy is then undefined.
        hyperparameters: By name.
        build: `"module:function"`, called `build(context, **hyperparameters) -> Built`.
        stores: What it keeps beside the network.
        mends: Faults of the host's implementation that we mend from outside; empty for a stock row.
        faults: Known faults that stay; footnotes of the leaderboard.
        limit: `(settings, reference)`: with these hyper-parameters the row equals the row `reference` bit for bit.
        networks: The kinds of network that it can train.
        heads: The kinds of head that it can train.
        reference: Whether it is a yardstick (fine-tuning, joint training), not a contender.
    """

    name: str
    source: str
    paper: str
    build: str
    revision: int = 1
    scenarios: tuple[str, ...] = SCENARIOS
    needs_task_label: bool = False
    hyperparameters: Mapping[str, HyperParameter] = field(default_factory=dict)
    stores: str = "nothing"
    mends: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    limit: tuple[Mapping[str, Any], str] | None = None
    networks: tuple[str, ...] = NETWORKS
    heads: tuple[str, ...] = HEADS
    reference: bool = False
    cites: tuple[str, ...] = ()

    def problem(self, scenarios: Sequence[str], network: NetworkSpec) -> str | None:
        """Why no cell of such a study can run this method, in one sentence; None where one can."""
        if not set(self.scenarios) & set(scenarios):
            asked = " or ".join(f"{s}-incremental" for s in scenarios)
            able = " and ".join(f"{s}-incremental" for s in self.scenarios)
            return f"{self.name} can't run in {asked} streams; it can in {able} ones"
        if network.name not in self.networks:
            return f"{self.name} can't train the network {network.name}; it can train {' and '.join(self.networks)}"
        if network.head not in self.heads:
            return f"{self.name} can't train a {network.head} head; it can train a {' and a '.join(self.heads)} one"
        return None

    def resolve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All hyper-parameters: the given ones checked, the rest by default.

        Raises:
            ValueError: An unknown name, or a value outside its range.
            TypeError: A value of the wrong type.
        """
        for name in given:
            if name not in self.hyperparameters:
                known = ", ".join(self.hyperparameters) or "none"
                raise ValueError(f"{name} is no hyper-parameter of {self.name}; it has {known}")
        return {
            name: parameter.check(name, given.get(name, parameter.default))
            for name, parameter in self.hyperparameters.items()
        }

    @property
    def origin(self) -> str:
        """`stock`, `mended` or the source's own name, as the leaderboard says it."""
        if self.source != "avalanche":
            return self.source
        return "avalanche, mended" if self.mends else "avalanche, stock"


class UnknownMethodError(ValueError):
    """A name that no row has; the message suggests the nearest."""


class MethodTable(Mapping[str, Method]):
    """The rows by name: our own table first, then rows of third parties' entry points, loaded when asked for.

    An entry point of the group `cl_ext.methods` is named after its method and points at a `Method`.
    """

    def __init__(self, rows: tuple[Method, ...]) -> None:
        self._rows = {row.name: row for row in rows}
        self._own = tuple(self._rows)
        self._foreign: dict[str, EntryPoint] | None = None

    @property
    def own_names(self) -> tuple[str, ...]:
        """The rows of this package."""
        return self._own

    def _entry_points(self) -> dict[str, EntryPoint]:
        if self._foreign is None:
            found = entry_points(group=ENTRY_POINT_GROUP)
            self._foreign = {point.name: point for point in found if point.name not in self._rows}
        return self._foreign

    def __getitem__(self, name: str) -> Method:
        if name in self._rows:
            return self._rows[name]
        points = self._entry_points()
        if name not in points:
            known = [*self._rows, *points]
            longer = [row for row in known if row.startswith(f"{name}_")]  # `ewc` means `ewc_avalanche`
            near = longer or difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UnknownMethodError(f"{name!r} is no method; {hint}`cl-ext methods` lists them all")
        row = points[name].load()
        if not isinstance(row, Method) or row.name != name:
            raise UnknownMethodError(
                f"the entry point {name!r} of the group {ENTRY_POINT_GROUP!r} ({points[name].value}) must be a "
                f"cl_ext.methods.Method named {name!r}; it is {row!r}"
            )
        self._rows[name] = row
        return row

    def __iter__(self) -> Iterator[str]:
        yield from dict.fromkeys([*self._rows, *self._entry_points()])

    def __len__(self) -> int:
        return len(set(self._rows) | set(self._entry_points()))

    def __contains__(self, name: object) -> bool:
        return name in self._rows or name in self._entry_points()
