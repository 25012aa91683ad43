"""Where each number comes from: a cell's settings, versions, machine and stream, each distinct one written once."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

_OF_THE_METHOD = ("method", "revision", "hyperparameters", "seed", "schema")
CELL_FIELDS = ("seed", "status", "run_id", "stream", "accuracy", "cpu_seconds", "environment", "error")


def stream_hash(spec: Mapping[str, Any]) -> str:
    """Which stream a cell saw: 16 hexadecimal digits over the description of its stream, the scenario and the seed.

    The description fixes every random decision of a stream, so equal hashes are equal streams as long as the data sets
    are. A user's own file stands in it by the checksum of its content; the record's `data` has that of the others.

    Args:
        spec: a cell's description, as `spec.json` holds it.
    """
    described = {key: spec.get(key) for key in ("stream", "scenario", "seed")}
    text = json.dumps(described, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Distinct:
    """Mappings by number, equal ones once."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []
        self._known: dict[str, int] = {}

    def number(self, value: Mapping[str, Any]) -> int:
        key = json.dumps(value, sort_keys=True, default=str)
        if key not in self._known:
            self._known[key] = len(self.all)
            self.all.append(dict(value))
        return self._known[key]


def provenance(cells: pd.DataFrame) -> tuple[dict[str, list[dict[str, Any]]], dict[tuple[str, ...], dict[str, Any]]]:
    """What a reader needs to find, judge and repeat each cell.

    Args:
        cells: the frame as `cl_ext.report.rows.aggregate.prepare` gives it, with or without the columns `environment`
            and `spec`.

    Returns:
        What many cells share, by number: `settings` (stream, network, budget, evaluation plan, device) and
        `environments` (versions, commit, machine); and by (study, stream, scenario, label) a row's `hyperparameters`,
        `revision`, `tuning`, the numbers of its `settings`, and `cells`, a list of `CELL_FIELDS` each. JSON values
        only, None where unknown.
    """
    settings, environments = _Distinct(), _Distinct()
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for values in cells.sort_values("seed", kind="stable").to_dict("records"):
        cell: dict[str, Any] = {str(name): value for name, value in values.items()}
        spec = cell["spec"] if isinstance(cell.get("spec"), Mapping) else {}
        place = tuple(str(cell[key]) for key in ("study", "stream", "scenario", "label"))
        if place not in rows:
            rows[place] = _row(cell, spec)
        row = rows[place]
        if spec:
            setting = settings.number({key: value for key, value in spec.items() if key not in _OF_THE_METHOD})
            row["settings"] += [setting] if setting not in row["settings"] else []
        known = isinstance(cell.get("environment"), Mapping)
        entry = {
            "seed": _plain(cell["seed"]),
            "status": str(cell["status"]),
            "run_id": _plain(cell.get("run_id")),
            "stream": stream_hash(spec) if spec else None,
            "accuracy": _rounded(cell.get("accuracy")),
            "cpu_seconds": _rounded(cell.get("cpu_seconds")),
            "environment": environments.number(cell["environment"]) if known else None,
            "error": cell.get("error") or None,
        }
        row["cells"].append([entry[field] for field in CELL_FIELDS])
    return {"settings": settings.all, "environments": environments.all}, rows


def _row(cell: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    given = {name.removeprefix("hp."): value for name, value in cell.items() if name.startswith("hp.")}
    used = spec.get("hyperparameters", {name: value for name, value in given.items() if not pd.isna(value)})
    tuning = {key: _plain(cell.get(f"tuning_{key}")) for key in ("protocol", "configurations", "seeds")}
    return {
        "method": str(cell["method"]),
        "revision": spec.get("revision"),
        "hyperparameters": {name: _plain(value) for name, value in used.items()},
        "tuning": {key: value for key, value in tuning.items() if value is not None},
        "settings": [],
        "cells": [],
    }


def _plain(value: Any) -> Any:
    """A numpy scalar as Python's own; NaN and None as None."""
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return None
    return value.item() if hasattr(value, "item") else value


def _rounded(value: Any) -> float | None:
    number = _plain(value)
    return None if number is None else float(f"{number:.6g}")
