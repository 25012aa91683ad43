"""Fixtures of the study tests."""

from collections.abc import Callable

from cl_ext.study import CellSpec

import pytest

from tests.study.search import Fake


@pytest.fixture
def fake(monkeypatch):
    def install(result: Callable[[CellSpec], float | str], stop_after: int | None = None) -> Fake:
        executor = Fake(result, stop_after)
        monkeypatch.setattr("cl_ext.study.runner.LocalExecutor", executor)
        return executor

    return install
