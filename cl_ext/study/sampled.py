"""A search by one of Optuna's samplers; imported only where one is asked for, because Optuna is an extra.

Every trial is a setting, and its cells lie in the store as those of a grid do. Optuna's journal, `optuna.log` in the
store, holds which trials there are. A sampler is seeded anew for every batch, by the tuning seed and the number of
trials before it, so that a search that was interrupted goes on as if it had not been.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cl_ext.study.document import StudyError
from cl_ext.study.protocol import Protocol
from cl_ext.study.span import Span, span_of
from cl_ext.study.spec import Study
from cl_ext.study.tune import Found, Group, Point, Search, base_of, search_with

try:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
except ImportError as error:
    raise StudyError(
        "--sampler: tpe and random are Optuna's, which is not installed; `pip install cl_ext[tune]` brings it, "
        "and --sampler grid does without"
    ) from error

BATCH = 4  # trials that are asked for at a time, whatever the number of workers, which must not change what is found


class Sampled:
    """The trials of a search, method by method and scenario by scenario.

    Args:
        study: The study.
        protocol: With a sampler and a number of trials.
        out: The store.
        device: `cpu` or `cuda`.

    Raises:
        StudyError: See `search_of`.
    """

    def __init__(self, study: Study, protocol: Protocol, out: Path, device: str = "cpu") -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._device = device
        self._trials = protocol.trials or 0
        self._part, names = base_of(study, protocol)
        self._spans = {
            (method, name): span_of(method, name, protocol) for method in self._part.methods for name in names[method]
        }
        out.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(out / "optuna.log")))
        self._studies: dict[Group, Any] = {}
        self._seeds: dict[Group, int] = {}
        for cell in self._part.cells(device):
            group = cell.method, cell.scenario
            if group in self._studies:
                continue
            spans = {name: self._spans[cell.method, name].to_dict() for name in names[cell.method]}
            fixed = {key: value for key, value in cell.hyperparameters.items() if key not in spans}
            what = [cell.to_dict() | {"hyperparameters": fixed}, spans, protocol.seeds, protocol.sampler]
            digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
            self._seeds[group] = int(digest[:8], 16)
            name = f"{study.name} {cell.method} {cell.scenario} {digest[:12]}"
            self._studies[group] = optuna.create_study(
                storage=storage, study_name=name, direction="maximize", load_if_exists=True
            )
        self._kind = protocol.sampler
        self._ask()

    def _sampler(self, seed: int) -> Any:
        if self._kind == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(seed=seed, constant_liar=True)

    def _ask(self) -> None:
        """Asks for the next trials of every group that has none under way."""
        for group, study in self._studies.items():
            trials = study.get_trials(deepcopy=False)
            if any(trial.state == optuna.trial.TrialState.RUNNING for trial in trials[: self._trials]):
                continue
            study.sampler = self._sampler((self._seeds[group] + len(trials)) % 2**32)
            for _ in range(min(BATCH, self._trials - len(trials))):
                study.ask({name: _distribution(self._spans[group[0], name]) for name in self._names(group)})

    def _names(self, group: Group) -> list[str]:
        return [name for method, name in self._spans if method == group[0]]

    def _values(self, group: Group, params: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._spans[group[0], name].rounded(params[name]) for name in self._names(group)}

    def _known(self, group: Group) -> Sequence[Any]:
        """A group's trials that have all their values: an ask may have been interrupted before it had."""
        trials = self._studies[group].get_trials(deepcopy=False)[: self._trials]
        return [trial for trial in trials if set(self._names(group)) <= set(trial.params)]

    def search(self) -> Search:
        """The search of all trials so far, those under way included."""
        points: dict[Group, list[Point]] = {}
        for group in self._studies:
            settings = [self._values(group, trial.params) for trial in self._known(group)]
            every = {name: _sorted([values[name] for values in settings]) for name in self._names(group)}
            places = [tuple(every[name].index(value) for name, value in values.items()) for values in settings]
            points[group] = list(dict(zip(places, settings, strict=True)).items())
        return search_with(self._part, points, self._spans, self._device)

    def tell(self, found: Sequence[Found]) -> bool:
        """Tells Optuna what came of the trials, and asks for the next.

        Returns:
            Whether there are any.
        """
        for each in found:
            group = each.method, each.scenario
            known = {json.dumps(tried.setting.values): tried.mean for tried in each.tried}
            complete = {trial.number for trial in self._known(group)}
            for trial in self._studies[group].get_trials(deepcopy=False)[: self._trials]:
                if trial.state != optuna.trial.TrialState.RUNNING:
                    continue
                if trial.number not in complete:
                    self._studies[group].tell(trial.number, state=optuna.trial.TrialState.FAIL)
                    continue
                mean = known[json.dumps(self._values(group, trial.params))]
                # Optuna leaves failed trials out of account and would go on asking for settings that diverge
                self._studies[group].tell(trial.number, 0.0 if mean is None else mean)
        self._ask()
        return any(
            trial.state == optuna.trial.TrialState.RUNNING
            for study in self._studies.values()
            for trial in study.get_trials(deepcopy=False)[: self._trials]
        )


def _distribution(span: Span) -> Any:
    if span.choices:
        return optuna.distributions.CategoricalDistribution(span.choices)
    if span.whole:
        return optuna.distributions.IntDistribution(int(span.low), int(span.high), log=span.log)
    return optuna.distributions.FloatDistribution(span.low, span.high, log=span.log)


def _sorted(values: Sequence[Any]) -> list[Any]:
    """Distinct values: numbers ascending, words as they came."""
    distinct = list(dict.fromkeys(values))
    return sorted(distinct) if all(type(value) in (int, float) for value in distinct) else distinct
