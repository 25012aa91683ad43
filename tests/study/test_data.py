"""Cells on real images give what the field knows; skipped with a reason where the data are absent."""

import os
from pathlib import Path

from cl_ext.study import Study
from cl_ext.study.cell import CellOptions, run_cell

import pytest

from tests.study.helpers import write

ROOT = Path(os.environ.get("CL_EXT_DATA", Path(__file__).parents[3] / "shared" / "data"))

MNIST = """\
stream: {name: split, dataset: mnist, experiences: 5}
scenarios: [class, domain]
network: {name: mlp, hidden: [100]}
budget: {optimizer: adam, lr: 1e-3, batch_size: 128, epochs: 1}
seeds: 0
methods: [naive, joint]
"""


@pytest.mark.data
@pytest.mark.skipif(not (ROOT / "MNIST").is_dir(), reason=f"no MNIST under {ROOT}; set CL_EXT_DATA")
def test_split_mnist(tmp_path):
    """Fine-tuning ends at the last of five experiences (about 20 %), joint training above 94 % after one epoch."""
    records = {}
    for cell in Study.load(write(tmp_path, MNIST)).cells():
        record = run_cell(cell, CellOptions(data_root=str(ROOT)))
        assert record["status"] == "done", record["error"]
        records[cell.method, cell.scenario] = record
    final = {key: sum(record["matrix"]["task_agnostic"][-1]) / 5 for key, record in records.items()}
    assert 0.18 < final["naive", "class"] < 0.25
    assert final["joint", "class"] > 0.94
    assert final["naive", "domain"] < 0.75
    assert final["joint", "domain"] > 0.95
    domain = records["naive", "domain"]["matrix"]
    assert domain["task_aware"] == domain["task_agnostic"], "domain-incremental, the two matrices coincide"


@pytest.mark.data
@pytest.mark.skipif(not (ROOT / "cifar10_500x100.npz").is_file(), reason=f"no CIFAR-10 subset under {ROOT}")
def test_cifar_from_an_npz(tmp_path):
    """A user's file, 32 x 32 RGB: a CNN learns the first two classes far above chance in one epoch."""
    text = MNIST.replace("dataset: mnist", "dataset: cifar10_500x100.npz").replace("joint", "replay_avalanche")
    text = text.replace("{name: mlp, hidden: [100]}", "{name: cnn, width: 8}").replace("[class, domain]", "[task]")
    study = Study.load(write(tmp_path, text.replace("batch_size: 128, epochs: 1", "batch_size: 32, epochs: 3")), ROOT)
    options = CellOptions(data_root=str(ROOT), files={key: str(path) for key, path in study.files.items()})
    for cell in study.cells():
        record = run_cell(cell, options)
        assert record["status"] == "done", record["error"]
        assert record["matrix"]["task_aware"][1][0] > 0.65
