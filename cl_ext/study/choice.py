"""Chooses a study's values by a named protocol, and writes the study that has them."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from cl_ext.study.protocol import Protocol, check_protocol
from cl_ext.study.runner import Progress
from cl_ext.study.span import TRIALS
from cl_ext.study.spec import Study
from cl_ext.study.transfer import fixed, transferred
from cl_ext.study.tune import Found, tune
from cl_ext.study.tuned import check_place, write_tuned

FIRST = 3  # experiences that a search looks at by the protocol first-experiences: Chaudhry et al. 2019


@dataclass(frozen=True)
class Choice:
    """What came of a protocol.

    Attributes:
        written: The files that it wrote.
        found: What a search found, by method and scenario; empty where nothing was searched.
        lines: What there is to say of values that were not searched.
    """

    written: tuple[Path, ...]
    found: tuple[Found, ...] = ()
    lines: tuple[str, ...] = ()


def choose_values(
    study: Study,
    search: Protocol,
    out: Path,
    place: Path,
    *,
    protocol: str | None = None,
    source: Path | None = None,
    workers: int | None = None,
    device: str = "cpu",
    data_root: Path | None = None,
    retry_failed: bool = False,
    time_limit: float | None = None,
    progress: Progress | None = None,
) -> Choice:
    """Chooses a study's values and writes the study that has them; the arguments that are not listed are `run`'s.

    Args:
        study: The study.
        search: How it is searched, or which methods are meant where it is not; what a named protocol says itself
            (how many experiences, how many trials) may be left out.
        out: The search's store.
        place: Where the study with the values goes.
        protocol: One of `PROTOCOLS`; by default what `search` and `source` imply.
        source: The study to take values of.

    Raises:
        StudyError: The protocol, the search or the place is impossible; see `check_protocol`, `tune`, `fixed` and
            `transferred`.
    """
    named = check_protocol(protocol, search, source)
    check_place(study, place)
    if named in ("fixed", "transfer"):
        if source is None:
            given = fixed(study, search.methods)
        else:
            given = transferred(study, Study.load(source, data_root), search.methods)
        return Choice((given.write(study, place, data_root),), lines=given.lines)
    if named == "first-experiences" and search.experiences is None:
        search = dataclasses.replace(search, experiences=FIRST)
    if search.sampler != "grid" and search.trials is None:
        search = dataclasses.replace(search, trials=TRIALS)
    found, _ = tune(
        study, search, out, workers=workers, device=device, data_root=data_root, retry_failed=retry_failed,
        time_limit=time_limit, progress=progress,
    )  # fmt: skip
    return Choice(tuple(write_tuned(study, search, found, out, place, data_root)), tuple(found))
