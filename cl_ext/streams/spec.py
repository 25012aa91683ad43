"""What a stream is, in words: the four ways to make a stream of them, and the checks. No torch here.

A :class:`StreamSpec` is small, frozen and serialisable, so that a study can be planned, hashed and described where
neither torch nor the data are. ``cl_ext.streams.build_stream`` turns it into an Avalanche benchmark.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cl_ext.streams.catalogue import DATASETS

STREAMS = ("split", "permuted", "rotated", "concat")
SCENARIOS = ("task", "domain", "class")
CLASS_ORDERS = ("fixed", "seed")


@dataclass(frozen=True)
class StreamSpec:
    """One stream: which data, cut how, seen through which scenario.

    Attributes:
        name: ``split`` (the classes are dealt out over the experiences), ``permuted`` (each experience permutes the
            pixels its own way), ``rotated`` (each turns the images by its own angle) or ``concat`` (one data set after
            another).
        dataset: a name of :data:`DATASETS`, or a user's ``.npz`` file; a tuple of them for ``concat``.
        scenario: ``task``, ``domain`` or ``class`` (van de Ven & Tolias 2019).
        experiences: how many; may be None for ``concat`` (one a data set) and for ``rotated`` with given angles.
        class_order: ``fixed`` (ascending class ids) or ``seed`` (permuted by the seed); ``split`` only.
        angles: degrees, one an experience; None draws them uniformly from [0, 180); ``rotated`` only.
        seed: non-negative; fixes class order, permutations, angles and the validation split.
        validation: fraction in [0, 1) of each experience's training data that is held out, stratified by class, and
            that then takes the place of the test data.
        normalise: whether each channel is brought to mean 0 and standard deviation 1 by the constants of
            :data:`DATASETS`; without it, grey values lie in [0, 1], as in many papers on MNIST: there inputs are a
            third as long, so that a learning rate reaches the first layer as if it were a ninth as large.
        samples: how many of each experience's training samples there are to train on, drawn by the seed, for each
            experience anew (1,000 in Lopez-Paz & Ranzato 2017); None for all.
        first: only so many experiences from the beginning of the stream, with the classes and labels of the whole;
            None for all. For searches of hyper-parameters that may see no more.
    """

    name: str
    dataset: str | tuple[str, ...]
    scenario: str
    experiences: int | None = None
    class_order: str = "fixed"
    angles: tuple[float, ...] | None = None
    seed: int = 0
    validation: float = 0.0
    normalise: bool = True
    samples: int | None = None
    first: int | None = None

    def validate(self, classes: int | None = None) -> None:
        """Checks everything that can be known without the data.

        Args:
            classes: the number of classes of a user's ``.npz`` data, where it is known; checks that need it are
                left out otherwise (``build_stream`` makes them up once it has the data).

        Raises:
            TypeError: a field has the wrong type.
            ValueError: a field, or a combination of fields, makes no stream.
        """
        _one_of("stream", self.name, STREAMS)
        _one_of("scenario", self.scenario, SCENARIOS)
        _one_of("class_order", self.class_order, CLASS_ORDERS)
        for dataset in self._checked_datasets():
            if not is_file(dataset):
                _one_of("data set", dataset, DATASETS, "or a file that ends in .npz")
        _integer("seed", self.seed, 0)
        if isinstance(self.validation, bool) or not isinstance(self.validation, int | float):
            raise TypeError(f"validation has to be a number in [0, 1), not {self.validation!r}")
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation has to lie in [0, 1), not {self.validation!r}")
        if not isinstance(self.normalise, bool):
            raise TypeError(f"normalise has to be true or false, not {self.normalise!r}")
        if self.samples is not None:
            _integer("samples", self.samples, 1)
            for dataset in self.datasets:
                if dataset in DATASETS and self.samples > DATASETS[dataset].train:
                    raise ValueError(
                        f"samples is {self.samples}, but {dataset} has {DATASETS[dataset].train} to train on"
                    )
        self._check_angles()
        self._check_experiences()
        if self.first is not None:
            _integer("first", self.first, 1)
            if self.first > number_of_experiences(self):
                raise ValueError(f"first is {self.first}, but the stream has {number_of_experiences(self)} experiences")
        if self.class_order == "seed" and self.name != "split":
            raise ValueError(
                f"class_order: seed is for split streams; every experience of a {self.name} stream has all "
                "classes of its data set"
            )
        self._check_classes(classes)

    @property
    def datasets(self) -> tuple[str, ...]:
        """The data sets, also where there is one."""
        return (self.dataset,) if isinstance(self.dataset, str) else tuple(self.dataset)

    def _checked_datasets(self) -> tuple[str, ...]:
        several = isinstance(self.dataset, tuple | list)
        if not several and not isinstance(self.dataset, str):
            raise TypeError(f"dataset has to be a name or a tuple of names, not {self.dataset!r}")
        if self.name == "concat" and (not several or len(self.dataset) < 2):
            raise ValueError(f"a concat stream needs at least two data sets, not {self.dataset!r}")
        if self.name != "concat" and several:
            raise ValueError(
                f"a {self.name} stream is made of one data set, not of {len(self.dataset)}; concat takes more"
            )
        for dataset in self.datasets:
            if not isinstance(dataset, str):
                raise TypeError(f"a data set is named by a string, not by {dataset!r}")
        return self.datasets

    def _check_angles(self) -> None:
        if self.angles is None:
            return
        if self.name != "rotated":
            raise ValueError(f"angles are for rotated streams, not for {self.name}")
        if not isinstance(self.angles, tuple | list) or not self.angles:
            raise TypeError(f"angles has to be a tuple of degrees, not {self.angles!r}")
        for angle in self.angles:
            if isinstance(angle, bool) or not isinstance(angle, int | float) or not math.isfinite(angle):
                raise ValueError(f"an angle has to be a finite number of degrees, not {angle!r}")

    def _check_experiences(self) -> None:
        given = len(self.datasets) if self.name == "concat" else len(self.angles) if self.angles else None
        if self.experiences is None:
            if given is None:
                raise ValueError(f"a {self.name} stream needs its number of experiences")
            return
        _integer("experiences", self.experiences, 1)
        if given is not None and self.experiences != given:
            what = "data sets" if self.name == "concat" else "angles"
            raise ValueError(
                f"experiences is {self.experiences}, but {given} {what} are given; leave it out or say {given}"
            )

    def _check_classes(self, classes: int | None) -> None:
        counts = [DATASETS[name].classes if name in DATASETS else classes for name in self.datasets]
        if self.name == "split":
            check_split(self, counts[0])
        if self.name == "concat" and self.scenario == "domain":
            known = {count for count in counts if count is not None}
            if len(known) > 1:
                each = ", ".join(f"{name} {count}" for name, count in zip(self.datasets, counts, strict=True))
                raise ValueError(
                    f"a domain-incremental concat stream needs data sets with equally many classes, not {each}"
                )


def is_file(dataset: str) -> bool:
    """Whether the name of a data set means a user's own file."""
    return dataset.endswith(".npz")


def check_split(spec: StreamSpec, classes: int | None) -> None:
    """Raises ValueError unless the experiences share the classes out evenly; a count of None is not checked."""
    if classes is None or spec.experiences is None or classes % spec.experiences == 0:
        return
    allowed = ", ".join(str(n) for n in range(1, classes + 1) if classes % n == 0)
    raise ValueError(
        f"{classes} classes of {spec.dataset} can't be split evenly over {spec.experiences} experiences; "
        f"allowed are {allowed}"
    )


def number_of_experiences(spec: StreamSpec) -> int:
    """The length of the whole stream, also where only its first experiences are wanted."""
    if spec.experiences is not None:
        return spec.experiences
    return len(spec.datasets) if spec.name == "concat" else len(spec.angles or ())


def number_of_classes(
    spec: StreamSpec, classes: int | None = None, files: Mapping[str, str | Path] | None = None
) -> int:
    """The number of outputs a network needs for the whole stream.

    Args:
        spec: the stream.
        classes: the number of classes of a user's file, where it is known.
        files: where a user's files lie, by the name the spec uses; they are read (with numpy) if `classes` is None.

    Returns:
        K for split streams (K / experiences in the domain scenario); K for permuted and rotated ones in the domain
        scenario and K x experiences otherwise; the sum over the data sets for concat (K in the domain scenario).
    """
    counts = [
        DATASETS[name].classes if name in DATASETS else _file_classes(name, classes, files) for name in spec.datasets
    ]
    if spec.name == "concat":
        return counts[0] if spec.scenario == "domain" else sum(counts)
    if spec.name == "split":
        return counts[0] // number_of_experiences(spec) if spec.scenario == "domain" else counts[0]
    return counts[0] if spec.scenario == "domain" else counts[0] * number_of_experiences(spec)


def describe(spec: StreamSpec) -> str:
    """One line for people, e.g. ``split mnist, class-incremental, 5 experiences``."""
    parts = [f"{spec.name} {' + '.join(spec.datasets)}", f"{spec.scenario}-incremental"]
    parts.append(f"{number_of_experiences(spec)} experiences")
    if spec.class_order == "seed":
        parts.append("class order by seed")
    if spec.angles is not None:
        parts.append("angles " + ", ".join(f"{angle:g}" for angle in spec.angles))
    if not spec.normalise:
        parts.append("not normalised")
    if spec.samples is not None:
        parts.append(f"{spec.samples} training samples each")
    if spec.first is not None:
        parts.append(f"the first {spec.first} of them")
    if spec.validation:
        parts.append(f"{spec.validation:.0%} of the training data held out in place of the test data")
    return ", ".join(parts)


def _file_classes(name: str, classes: int | None, files: Mapping[str, str | Path] | None) -> int:
    if classes is not None:
        return classes
    import numpy as np

    with np.load((files or {}).get(name, name), allow_pickle=False) as data:
        return len(np.unique(data["y_train"]))


def _one_of(what: str, value: object, allowed: Iterable[str], more: str = "") -> None:
    allowed = list(allowed)
    if not isinstance(value, str):
        raise TypeError(f"{what} has to be a string, not {value!r}")
    if value not in allowed:
        near = difflib.get_close_matches(value.lower(), allowed, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"unknown {what} {value!r}{hint} (allowed: {', '.join(allowed)}{' ' + more if more else ''})")


def _integer(what: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} has to be an integer, not {value!r}")
    if value < least:
        raise ValueError(f"{what} has to be at least {least}, not {value}")
