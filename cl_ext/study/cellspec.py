"""What a cell is: one method with its values in one scenario of one stream with one seed; hashed, the run id."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SCHEMA = 1


@dataclass(frozen=True)
class CellSpec:
    """What a cell computes; equal descriptions give equal results, wherever and in whatever study they run.

    Attributes:
        stream: Kind, data set (a user's file by its content's checksum), experiences, class order, angles.
        scenario: `task`, `domain` or `class`.
        network: Name, sizes, head.
        budget: The training budget.
        evaluation: `experience`, `epoch`, or a number of iterations between evaluations.
        device: Device type, `cpu` or `cuda`.
        method: The row's name.
        revision: The row's revision.
        hyperparameters: All of the row's, resolved.
        seed: Fixes split, class order, initial weights and batch order, the same for every method.
        schema: Version of the format of records.
    """

    stream: Mapping[str, Any]
    scenario: str
    network: Mapping[str, Any]
    budget: Mapping[str, Any]
    evaluation: str | int
    device: str
    method: str
    revision: int
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    schema: int = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """The description as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "CellSpec":
        """The inverse of `to_dict`."""
        return cls(**fields)

    def canonical(self) -> str:
        """Canonical JSON: sorted keys, no spaces; what is hashed."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)

    @property
    def run_id(self) -> str:
        """The first 20 hexadecimal digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.canonical().encode("ascii")).hexdigest()[:20]

    def sibling(self) -> tuple[str, ...]:
        """What stays when a row's revision changes: finds records that a new revision made stale."""
        fields = self.to_dict()
        fields.pop("revision")
        return (json.dumps(fields, sort_keys=True),)

    def title(self) -> str:
        """The cell for people: `naive class seed 0`."""
        return f"{self.method} {self.scenario} seed {self.seed}"


def criterion(scenario: str) -> str:
    """The accuracy matrix that a scenario is judged by: task-aware where the task is given, else task-agnostic."""
    return "task_aware" if scenario == "task" else "task_agnostic"
