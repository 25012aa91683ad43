"""How a search of hyper-parameters is made: on which data and seeds, over which values, and by which sampler."""

import contextlib
import dataclasses
import itertools
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cl_ext.methods import METHODS, HyperParameter
from cl_ext.streams.spec import StreamSpec, number_of_experiences
from cl_ext.study.document import StudyError

PROTOCOLS = ("end-of-stream", "first-experiences", "fixed", "transfer")
_FEWEST_DECADES = 5


@dataclass(frozen=True)
class Protocol:
    """How a search is made; all that changes what it finds, and nothing else.

    Attributes:
        methods: Only these; by default all of the study's that have something to tune.
        scenarios: Only these of the study's.
        seeds: Tuning seeds, none of them the study's.
        validation: Fraction of the training data that is held out and measured on, in (0, 1).
        experiences: Only the first so many of the stream's.
        hyperparameters: What is tuned, in a product; by default each method's strength.
        grids: Values by hyper-parameter, in the place of the rows' own; a sampler draws between the ends.
        sampler: `grid` tries every value; `tpe` and `random` are Optuna's.
        trials: Settings of each method and scenario that a sampler tries; None with a grid.
    """

    methods: tuple[str, ...] | None = None
    scenarios: tuple[str, ...] | None = None
    seeds: tuple[int, ...] = (1000,)
    validation: float = 0.2
    experiences: int | None = None
    hyperparameters: tuple[str, ...] | None = None
    grids: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    sampler: str = "grid"
    trials: int | None = None

    @property
    def name(self) -> str:
        """The protocol's name: what is seen of the stream before the values are set."""
        return "end-of-stream" if self.experiences is None else "first-experiences"

    def text(self) -> str:
        """The protocol in words, as a study file and its records carry it."""
        names = self.hyperparameters
        what = " and ".join(names) if names else "each method's strength"
        how = "grid" if self.sampler == "grid" else f"{self.trials} trials by {self.sampler} (Optuna)"
        part = "" if self.experiences is None else f" of the first {self.experiences} experiences"
        return (
            f"{self.name}: {how} of {what}; best mean accuracy on {100 * self.validation:g} % of the training data"
            f"{part}, held out; of equals (0.1 points) the smallest"
        )

    def command(self, path: Path | str) -> str:
        """The command line that makes this search of a study file."""
        words = ["cl-ext", "tune", str(path)]
        for option, names in (("--methods", self.methods), ("--scenarios", self.scenarios)):
            words += [option, ",".join(names)] if names else []
        words += ["--seeds", ",".join(map(str, self.seeds)), "--validation", _written(self.validation)]
        words += ["--experiences", str(self.experiences)] if self.experiences is not None else []
        words += ["--hyperparameters", ",".join(self.hyperparameters)] if self.hyperparameters else []
        words += ["--sampler", self.sampler, "--trials", str(self.trials)] if self.sampler != "grid" else []
        for name, values in self.grids.items():
            words += ["--grid", f"{name}={','.join(_written(value) for value in values)}"]
        return shlex.join(words)


def _written(value: Any) -> str:
    """A value as a command line has it: short, and the same number when it is read."""
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def strength_of(method: str) -> str | None:
    """A method's strength: the hyper-parameter named `..._lambda`, else the first that is searched over decades."""
    parameters = METHODS[method].hyperparameters
    named = [name for name in parameters if name.endswith("_lambda")]
    return next(iter(named or [name for name, parameter in parameters.items() if _decades(parameter)]), None)


def _decades(parameter: HyperParameter) -> bool:
    values = parameter.search
    return (
        type(parameter.default) is float
        and len(values) >= _FEWEST_DECADES
        and all(low > 0 and math.isclose(high / low, 10) for low, high in itertools.pairwise(values))
    )


def first_experiences(stream: StreamSpec, count: int) -> StreamSpec:
    """The first experiences of a stream: what the same seed gives the whole one.

    Permuted and rotated streams are made shorter: these are the same data. The others are made whole, and cut: a
    shorter split stream would deal the classes out anew, a shorter concat stream could be of another image size.

    Raises:
        StudyError: The stream has fewer.
    """
    total = number_of_experiences(stream)
    if not 2 <= count <= total:
        raise StudyError(f"--experiences is {count}; it takes a whole number from 2 to the stream's {total}")
    if count == total:
        return stream
    if stream.name not in ("permuted", "rotated"):
        return dataclasses.replace(stream, first=count)
    angles = stream.angles and stream.angles[:count]
    return dataclasses.replace(stream, angles=angles, experiences=stream.experiences and count)


def tuned_names(method: str, protocol: Protocol) -> tuple[str, ...]:
    """What is tuned of a method, its strength first: of equal settings the smallest strength is to win."""
    strength = strength_of(method)
    if protocol.hyperparameters is None:
        return () if strength is None else (strength,)
    names = [name for name in protocol.hyperparameters if name in METHODS[method].hyperparameters]
    return tuple(sorted(names, key=lambda name: name != strength))


def check_names(protocol: Protocol, names: Mapping[str, tuple[str, ...]]) -> None:
    """Refuses names that nothing answers to.

    Args:
        protocol: The protocol.
        names: What is tuned, by method.

    Raises:
        StudyError: A hyper-parameter that no method has, values for one that is not tuned, nothing to tune.
    """
    searched = {name for tuned in names.values() for name in tuned}
    for name in protocol.hyperparameters or ():
        if name not in searched:
            raise StudyError(f"--hyperparameters: {name!r} is no hyper-parameter of the methods that are tuned")
    for name in protocol.grids:
        if name not in searched:
            raise StudyError(f"--grid: {name!r} is not tuned here; --hyperparameters names what is")
    idle = [method for method, tuned in names.items() if not tuned and method in (protocol.methods or ())]
    if idle or not searched:
        what = "strength" if protocol.hyperparameters is None else "such hyper-parameter"
        raise StudyError(f"{(idle or ['the study'])[0]} has no {what} to tune; --hyperparameters names others")


def grid_values(method: str, name: str, protocol: Protocol) -> list[Any]:
    """The values that are tried: numbers ascending, words as they are given.

    Raises:
        StudyError: There are none, or the method does not take one of them.
    """
    parameter = METHODS[method].hyperparameters[name]
    given = protocol.grids.get(name, parameter.search)
    if not given:
        raise StudyError(f"{method} has no values of {name} to search; --grid {name}=... gives some")
    try:
        values = list(dict.fromkeys(parameter.check(name, value) for value in given))
    except (ValueError, TypeError) as error:
        raise StudyError(f"--grid: {method}: {error}") from None
    return sorted(values) if type(parameter.default) in (int, float) else values


def check_protocol(name: str | None, search: Protocol, source: Path | None) -> str:
    """The name of the protocol that the options ask for.

    Args:
        name: As it was given; None where it was not.
        search: The options of a search.
        source: `--from`.

    Raises:
        StudyError: There is no such protocol, or the options contradict each other.
    """
    searched = search.experiences is not None
    implied = "transfer" if source is not None else "first-experiences" if searched else "end-of-stream"
    named = implied if name is None else name
    if named not in PROTOCOLS:
        raise StudyError(f"--protocol is {name!r}; it can be {', '.join(PROTOCOLS)}")
    if (named == "transfer") != (source is not None):
        raise StudyError("--protocol transfer and --from STUDY.yaml, the tuned study to take values of, go together")
    if searched and named != "first-experiences":
        raise StudyError(f"--experiences is for --protocol first-experiences, and --protocol is {named}")
    options = {
        "--grid": search.grids, "--hyperparameters": search.hyperparameters, "--scenarios": search.scenarios,
        "--trials": search.trials, "--sampler": search.sampler if search.sampler != "grid" else None,
    }  # fmt: skip
    given = [option for option, value in options.items() if value]
    if named in ("fixed", "transfer") and given:
        raise StudyError(f"--protocol {named} searches nothing; leave {', '.join(given)} out")
    return named


def parse_grids(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """`si_lambda=0.1,1` as values by name: numbers, true and false, words.

    Raises:
        StudyError: A text is no such list, or a name stands there twice.
    """
    grids: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        given = [part.strip() for part in values.split(",") if part.strip()]
        if not name.strip() or not given:
            raise StudyError(f"--grid is {text!r}; it takes a name and its values, such as si_lambda=0.1,1,10")
        if name.strip() in grids:
            raise StudyError(f"--grid: {name.strip()} stands there twice")
        grids[name.strip()] = tuple(_value(part) for part in given)
    return grids


def _value(text: str) -> Any:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return {"true": True, "false": False}.get(text, text)
