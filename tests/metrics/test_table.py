"""The table of measures is complete, and what is written about it in docs/metrics.md is what it says."""

from pathlib import Path

from cl_ext.metrics import METRICS

import pytest

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_columns_of_the_tidy_frame():
    named = ["accuracy", "average_incremental_accuracy", "bwt", "fwt", "forgetting", "learning_accuracy"]
    assert {*named, "intransigence"} <= set(METRICS)
    titles = [metric.title for metric in METRICS.values()]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())
def test_documented(metric):
    text = DOCS.read_text(encoding="utf-8")
    for said in (f"`{metric.name}`", f"`{metric.function.__name__}`", metric.title, metric.formula, metric.source):
        assert said in text, said


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())
def test_source_stands_in_the_docstring(metric):
    year = next(word for word in metric.source.split() if word.isdigit())
    assert year in (metric.function.__doc__ or "")
