"""What a sampler may draw: a range for each hyper-parameter, and how many trials it has."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from cl_ext.methods import METHODS
from cl_ext.study.document import StudyError
from cl_ext.study.protocol import Protocol, grid_values

SAMPLERS = ("grid", "tpe", "random")
TRIALS = 20


@dataclass(frozen=True)
class Span:
    """What a sampler draws one hyper-parameter from: a range of numbers, or choices.

    Attributes:
        low: The smallest number.
        high: The largest.
        whole: Whether the numbers are whole.
        log: Whether they are drawn evenly on a logarithmic scale.
        choices: Words or switches, in the place of a range.
    """

    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    log: bool = False
    choices: tuple[Any, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The span as JSON values."""
        return dataclasses.asdict(self)

    def rounded(self, value: Any) -> Any:
        """A drawn value as a study's file has it: three significant digits, inside the range."""
        if self.choices or self.whole:
            return value
        return min(max(float(f"{value:.3g}"), self.low), self.high)

    def at_edge(self, value: Any) -> bool:
        """Whether a value lies in the first or last twentieth of the range."""
        if self.choices:
            return False
        low, high, at = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return not 0.05 < (at - low) / (high - low) < 0.95


def span_of(method: str, name: str, protocol: Protocol) -> Span:
    """What a sampler draws a hyper-parameter of a method from: between the ends of its values, or one of its words.

    A range whose ends are a decade apart or more is drawn from on a logarithmic scale.

    Raises:
        StudyError: See `grid_values`.
    """
    values = grid_values(method, name, protocol)
    kind = type(METHODS[method].hyperparameters[name].default)
    if kind not in (int, float) or len(values) == 1:
        return Span(choices=tuple(values))
    low, high = values[0], values[-1]
    return Span(low, high, whole=kind is int, log=low > 0 and high / low >= 10)


def check_sampler(protocol: Protocol) -> None:
    """Refuses samplers that there are not, and numbers of trials that make no sense.

    Raises:
        StudyError: Such a one.
    """
    if protocol.sampler not in SAMPLERS:
        raise StudyError(f"--sampler is {protocol.sampler!r}; it can be {', '.join(SAMPLERS)}")
    if protocol.sampler == "grid" and protocol.trials is not None:
        raise StudyError("--trials is for the samplers tpe and random; a grid tries each of its values once")
    if protocol.sampler != "grid" and (protocol.trials is None or protocol.trials < 1):
        raise StudyError(f"--trials is {protocol.trials}; it takes a whole number of at least 1")
