"""Records what other libraries make of the statistics' inputs, for the tests to compare with.

The libraries are no dependency of the tests (rliable needs pandas below 3). In an environment of their own:

    pip install "pandas<3" rliable autorank scikit-posthocs statsmodels
    python tests/report/oracles/record.py [aggregates signed_rank holm ranks]

writes aggregates.json, signed_rank.json, holm.json and ranks.json beside this file, each with the versions.
"""

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scikit_posthocs
from autorank import autorank
from rliable import library, metrics
from scipy import stats
from statsmodels.stats.multitest import multipletests

HERE = Path(__file__).parent
DRAWS = 50_000
VERSIONS = {
    name: version(name)
    for name in ("numpy", "scipy", "pandas", "rliable", "arch", "autorank", "scikit-posthocs", "statsmodels")
}


def aggregates() -> list[dict[str, Any]]:
    """rliable on (runs, tasks): random ones, few runs, many ties, no variance, one task."""
    random = np.random.RandomState(7)
    shift = np.array([0.3, 0.5, 0.6, 0.7, 0.75, 0.9])
    tables = {
        "random": (shift + 0.1 * random.randn(10, 6), shift + 0.05 + 0.1 * random.randn(10, 6)),
        "skewed": (random.gamma(1.0, 0.3, (20, 4)), random.gamma(1.2, 0.3, (20, 4))),
        "few runs": (random.rand(3, 5), random.rand(3, 5)),
        "two runs": (random.rand(2, 6), random.rand(2, 6)),
        "other numbers of runs": (random.rand(12, 3), random.rand(7, 3) + 0.1),
        "one task": (random.rand(20, 1), random.rand(20, 1)),
        "ties": (random.randint(0, 3, (8, 4)) / 2, random.randint(0, 3, (8, 4)) / 2),
        "no variance": (np.tile([0.2, 0.5, 0.9], (6, 1)), np.tile([0.2, 0.4, 1.0], (6, 1))),
        "outlier": (np.r_[np.full((9, 2), 0.5), [[-30.0, 40.0]]], np.full((10, 2), 0.5)),
    }
    thresholds = np.linspace(-0.25, 1.25, 13)
    found = []
    for name, (x, y) in tables.items():
        each: dict[str, Any] = {"name": name, "x": x.tolist(), "y": y.tolist(), "thresholds": thresholds.tolist()}
        for key, statistic in (("iqm", metrics.aggregate_iqm), ("mean", metrics.aggregate_mean)):
            point, interval = library.get_interval_estimates(
                {"x": x},
                lambda scores, s=statistic: np.array([s(scores)]),
                reps=DRAWS,
                random_state=np.random.RandomState(1),
            )
            each[key] = [point["x"][0], *interval["x"][:, 0]]
        point, interval = library.get_interval_estimates(
            {"x": (x, y)}, lambda a, b: np.array([metrics.probability_of_improvement(a, b)]), reps=2000,
            random_state=np.random.RandomState(2),
        )  # fmt: skip
        each["improvement"] = np.ravel([point["x"], *interval["x"]]).tolist()
        np.random.seed(3)  # the profile draws from the global generator
        share, band = library.create_performance_profile({"x": x}, thresholds, reps=5000)
        each["profile"] = [share["x"].tolist(), *band["x"].tolist()]
        found.append(each)
    return found


def signed_rank() -> list[dict[str, Any]]:
    """scipy's permutation of all signs: exact with ties; zeros left out beforehand."""
    random = np.random.RandomState(11)
    rows = [random.randn(n) + shift for n in (2, 5, 8, 11) for shift in (0.0, 0.8)]
    rows += [random.randint(-4, 6, n) / 2 for n in (3, 6, 9, 12, 12)]
    rows += [
        np.ones(6),
        np.array([1.0, -1.0]),
        np.array([0.0, 0.0, 2.0, -1.0]),
        np.array([1.0, 1.0, 2.0, -1.0, 3.0, 3.0]),
    ]
    found = []
    for row in rows:
        moved = row[row != 0]
        p = stats.wilcoxon(moved, method=stats.PermutationMethod(n_resamples=10**6)).pvalue
        found.append({"differences": row.tolist(), "p": float(p)})
    return found


def holm() -> list[dict[str, Any]]:
    """statsmodels."""
    random = np.random.RandomState(13)
    rows = [random.rand(m) ** 3 for m in (1, 2, 5, 20, 100)] + [np.ones(3), np.zeros(4), np.array([0.02] * 5)]
    rows += [np.round(random.rand(30) ** 4, 2)]
    return [{"p": p.tolist(), "corrected": multipletests(p, method="holm")[1].tolist()} for p in rows]


def ranks() -> list[dict[str, Any]]:
    """scipy's Friedman test, autorank's mean ranks and critical difference, scikit-posthocs' Nemenyi p-values."""
    random = np.random.RandomState(17)
    tables = {
        "random": random.rand(12, 5),
        "shifted": random.rand(15, 8) + np.linspace(0, 1, 8),
        "ties": random.randint(0, 4, (10, 4)) / 4,
        "few streams": random.rand(6, 10),
        "three": random.rand(20, 3),
        "one order": np.arange(4) + np.arange(10)[:, None] * 1.0,
    }
    found = []
    for name, table in tables.items():
        statistic, p = stats.friedmanchisquare(*table.T)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of too few streams, which is the point
            by = autorank(pd.DataFrame(table), alpha=0.05, force_mode="nonparametric", order="descending")
        pairs = scikit_posthocs.posthoc_nemenyi_friedman(table)
        means = by.rankdf["meanrank"].sort_index().to_numpy()
        found.append(
            {
                "name": name,
                "scores": table.tolist(),
                "statistic": float(statistic),
                "p": float(p),
                "ranks": means.tolist(),
                "critical_difference": None if by.cd is None else float(by.cd),
                "nemenyi": pairs.to_numpy().tolist(),
            }
        )
    return found


if __name__ == "__main__":
    for record in (aggregates, signed_rank, holm, ranks):
        if sys.argv[1:] and record.__name__ not in sys.argv[1:]:
            continue
        text = json.dumps({"versions": VERSIONS, "cases": record()}, indent=1)
        (HERE / f"{record.__name__}.json").write_text(text + "\n", encoding="utf-8")
