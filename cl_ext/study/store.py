"""The store: one folder a cell, written beside and renamed into place, so that no record is ever half a record."""

import fcntl
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cl_ext.study.cellspec import SCHEMA, CellSpec
from cl_ext.study.document import StudyError

FINISHED = "done"
FAILURES = ("failed", "timeout", "diverged")
_HOST = platform.node().replace(".", "-") or "host"


def _writer() -> str:
    """Names the process that writes: a store may lie on a file system that several machines share."""
    return f"{_HOST}.{os.getpid()}"


class Store:
    """A folder of records.

    Args:
        root: The folder; made when something is written.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def folder(self, run_id: str) -> Path:
        """Where a cell's record lies."""
        return self.root / "cells" / run_id

    def status(self, run_id: str) -> str | None:
        """`done`, a failure's kind, or None where there is no readable record."""
        record = self.record(run_id)
        return None if record is None else str(record["status"])

    def record(self, run_id: str) -> dict[str, Any] | None:
        """A cell's record, None where there is none or it can't be read (it is then run again).

        Raises:
            StudyError: It is of a later schema than this version knows: running its cell again would not mend that.
        """
        content = _readable(self.folder(run_id) / "record.json")
        whole = content is not None and all(isinstance(content.get(key), str) for key in ("run_id", "status"))
        return content if whole else None

    def spec(self, run_id: str) -> CellSpec | None:
        """A stored cell's description, None where there is none or it can't be read.

        Raises:
            StudyError: It is of a later schema than this version knows.
        """
        fields = _readable(self.folder(run_id) / "spec.json")
        try:
            return None if fields is None else CellSpec.from_dict(fields)
        except TypeError:  # fields that a description has are absent, or others are there
            return None

    def environment(self, run_id: str) -> dict[str, Any] | None:
        """Versions and machine of a cell's run; None where the file is missing or can't be read."""
        return _read(self.folder(run_id) / "environment.json")

    def run_ids(self) -> list[str]:
        """All cells that have a folder, in a fixed order."""
        cells = self.root / "cells"
        if not cells.is_dir():
            return []
        return sorted(entry.name for entry in cells.iterdir() if entry.is_dir() and not entry.name.startswith("."))

    def write(
        self, cell: CellSpec, record: Mapping[str, Any], environment: Mapping[str, Any], log: Path | str | None = None
    ) -> Path:
        """Writes a cell's folder beside its place, flushes it to disk and renames it into place.

        A finished record is never replaced; a failure is, by a later try.

        Args:
            cell: The description.
            record: The record, with its status.
            environment: Versions and machine.
            log: The cell's output: a file to move, or its text.
        """
        place = self.folder(cell.run_id)
        if self.status(cell.run_id) == FINISHED:
            return place
        beside = place.with_name(f".{cell.run_id}.{_writer()}")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        if isinstance(log, Path):
            shutil.copyfile(log, beside / "log.txt")
        else:
            (beside / "log.txt").write_text(log or "", encoding="utf-8")
        for name, content in (("spec", cell.to_dict()), ("environment", environment), ("record", record)):
            _write_json(beside / f"{name}.json", content)
        if place.exists():
            old = place.with_name(f".old-{cell.run_id}.{_writer()}")
            os.rename(place, old)
            os.rename(beside, place)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(beside, place)
        return place

    def write_study(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes which cells a study asks for, so that `collect` can name the study of a record."""
        place = self.root / "studies" / f"{name}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(f".{name}.{_writer()}")
        _write_json(beside, content)
        os.replace(beside, place)

    def studies(self) -> dict[str, dict[str, Any]]:
        """The studies that were run into this store, by name."""
        found = {}
        for path in sorted((self.root / "studies").glob("*.json")):
            content = _read(path)
            if content is not None:
                found[path.stem] = content
        return found

    @contextmanager
    def lock(self, run_id: str) -> Iterator[bool]:
        """Holds a cell's lock; yields False at once where another process, of any launcher, holds it.

        The system drops the lock when its holder dies, however it dies.
        """
        path = self.root / "locks" / f"{run_id}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield True

    def sweep(self) -> None:
        """Removes half-written folders whose writers, on this machine, are gone."""
        for entry in (self.root / "cells").glob(f".*.{_HOST}.*"):
            pid = int(entry.name.rpartition(".")[2])
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                shutil.rmtree(entry, ignore_errors=True)
            except PermissionError:
                continue  # alive, and somebody else's


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _readable(path: Path) -> dict[str, Any] | None:
    """A file that carries a schema; fields that are younger than it are missing, and whoever reads them knows that."""
    content = _read(path)
    schema = None if content is None else content.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise StudyError(
            f"{path} is of schema {schema}, and this version of cl_ext reads schemas up to {SCHEMA}; a newer version "
            "of cl_ext wrote it and can read it"
        )
    return content


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as handle:
        json.dump(content, handle, indent=1, allow_nan=False, sort_keys=True)
        handle.write("\n")
        handle.flush()
        os.fsync(handle.fileno())
