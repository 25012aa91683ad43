"""BibTeX for what a report shows: its methods, measures, streams and data sets, and the software that ran them."""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from cl_ext.methods import METHODS
from cl_ext.metrics import METRICS

import pandas as pd

SOFTWARE = ("cl_ext", "carta2023avalanche", "paszke2019pytorch")
STREAMS: Mapping[str, str] = {
    "split": "zenke2017continual",
    "permuted": "goodfellow2013empirical",
    "rotated": "lopezpaz2017gradient",
}
"""Who brought a kind of stream into use; `concat` has no paper."""
DATASETS: Mapping[str, str] = {
    "digits": "alpaydin1998optical",
    "mnist": "lecun1998gradient",
    "fashion_mnist": "xiao2017fashion",
    "kmnist": "clanuwat2018deep",
    "usps": "hull1994database",
    "svhn": "netzer2011reading",
    "cifar10": "krizhevsky2009learning",
    "cifar100": "krizhevsky2009learning",
    "tiny_imagenet": "le2015tiny",
    "core50": "lomonaco2017core50",
}
SCENARIOS = "vandeven2022three"
STATISTICS: Mapping[str, str] = {
    "Wilcoxon signed-rank test": "wilcoxon1945individual",
    "Holm's correction": "holm1979simple",
    "interquartile mean, performance profiles": "agarwal2021deep",
}
_MEASURES: Mapping[str, str] = {
    "Lopez-Paz and Ranzato 2017 (GEM)": "lopezpaz2017gradient",
    "Rebuffi et al. 2017 (iCaRL)": "rebuffi2017icarl",
    "Chaudhry et al. 2018 (RWalk)": "chaudhry2018riemannian",
    "Chaudhry et al. 2019 (A-GEM)": "chaudhry2019efficient",
    "Riemer et al. 2019 (MER)": "riemer2019learning",
    "Caccia et al. 2022 (ER-ACE)": "caccia2022new",
    "De Lange et al. 2023": "delange2023continual",
    "Díaz-Rodríguez et al. 2018": "diazrodriguez2018dont",
}
_ENTRY = re.compile(r"^@\w+\{([^,\s]+),\n.*?^\}$", re.DOTALL | re.MULTILINE)


def parse(text: str) -> dict[str, str]:
    """The entries of a BibTeX text by key, each as it stands.

    An entry begins with `@kind{key,` at the start of a line and ends with a line that is a closing brace alone; what
    stands between entries is left out.

    Raises:
        ValueError: Two different entries have one key.
    """
    found: dict[str, str] = {}
    for match in _ENTRY.finditer(text):
        if found.setdefault(match[1], match[0]) != match[0]:
            raise ValueError(f"two different BibTeX entries have the key {match[1]!r}")
    return found


@cache
def entries() -> Mapping[str, str]:
    """All entries of `cl_ext/references.bib` by key."""
    return MappingProxyType(parse((files("cl_ext") / "references.bib").read_text(encoding="utf-8")))


def measure_key(name: str) -> str | None:
    """The key of the paper that a measure of `METRICS` comes from; None where there is none."""
    return _MEASURES.get(METRICS[name].source) if name in METRICS else None


def cited(frame: pd.DataFrame) -> dict[str, dict[str, list[str]]]:
    """What a frame's report has to cite.

    Args:
        frame: the tidy frame, a row a cell. Data sets and streams are known where it has the column `spec`.

    Returns:
        Head -> key -> what is cited for: "methods", "measures and statistics", "streams and data sets", "software".
        A key stands under the first head that has it; method names are in the order of the table.
    """
    names = [name for name in METHODS.own_names if name in set(frame["method"])]
    names += sorted(set(frame["method"]) - set(names))
    methods = [(key, name) for name in names if name in METHODS for key in METHODS[name].cites]
    measured = [name for name in METRICS if name in frame and frame[name].notna().any()]
    measures = [(key, METRICS[name].title) for name in measured if (key := measure_key(name))]
    measures += [(key, what) for what, key in STATISTICS.items()]
    streams = [(SCENARIOS, "scenarios")]
    for spec in frame.get("spec", ()):
        if isinstance(spec, Mapping):
            streams += _of_stream(spec["stream"])
    heads = {
        "methods": methods,
        "measures and statistics": measures,
        "streams and data sets": streams,
        "software": [(key, "") for key in SOFTWARE],
    }
    seen: dict[str, list[str]] = {}
    sorted_out: dict[str, dict[str, list[str]]] = {}
    for head, pairs in heads.items():
        own: dict[str, list[str]] = {}
        for key, what in pairs:
            if key not in seen:
                seen[key] = own[key] = []
            if what and what not in seen[key]:
                seen[key].append(what)
        sorted_out[head] = own
    return sorted_out


def _of_stream(stream: Mapping[str, object]) -> Iterable[tuple[str, str]]:
    kind, data = str(stream["name"]), stream["dataset"]
    if kind in STREAMS:
        yield STREAMS[kind], f"{kind} streams"
    for name in [data] if isinstance(data, str) else list(data) if isinstance(data, (list, tuple)) else []:
        if name in DATASETS:
            yield DATASETS[name], str(name)


def to_bibtex(frame: pd.DataFrame) -> str:
    """BibTeX for what a report of the frame shows, each entry below a line that says what it is cited for.

    Methods of other packages that name no key of ours stand in the first lines, with their paper.

    Args:
        frame: the tidy frame, a row a cell (see `cited`).
    """
    known = entries()
    foreign = sorted(set(frame["method"]) - set(METHODS.own_names))
    unknown = [
        f"{name}: {METHODS[name].paper}" if name in METHODS else f"{name}: no row of the table of methods"
        for name in foreign
        if name not in METHODS or not set(METHODS[name].cites) & set(known)
    ]
    parts = [f"Without an entry here: {line}".replace("@", "(at)") for line in unknown]
    for head, keys in cited(frame).items():
        found = [(key, what) for key, what in keys.items() if key in known]
        if found:
            parts.append(f"==== {head} ====")
            parts += [f"{'For ' + ', '.join(what) + ':' if what else ''}\n{known[key]}".strip() for key, what in found]
    return "\n\n".join(parts) + "\n"


def write_bibtex(frame: pd.DataFrame, out: str | Path) -> Path:
    """Writes `leaderboard.bib` into a folder, which is made if it is not there."""
    place = Path(out) / "leaderboard.bib"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(to_bibtex(frame), encoding="utf-8")
    return place
