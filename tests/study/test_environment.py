"""What a record says of where it was made: the data that were read, versions, machine, commit."""

import json

from cl_ext.streams import StreamSpec, build_stream
from cl_ext.streams.datasets import content_checksum, load_dataset
from cl_ext.study import Store, Study, collect, run
from cl_ext.study.environment import environment

import numpy as np

from tests.study.helpers import TINY, write

DIGITS = "sha256:530442210fa5eee3c9d72a9ca3aa647853fb638b6528ba0a617af59e6ac26cc3"


def test_a_record_has_the_checksum_of_its_data_and_its_id_does_not_feel_it(tmp_path):
    study = Study.load(write(tmp_path, TINY.replace("0-1", "0").replace("[naive, joint]", "[naive]")))
    (cell,) = study.cells()
    assert run(study, tmp_path / "store", workers=1).states == {"done": 1}
    store = Store(tmp_path / "store")
    said = json.loads((store.folder(cell.run_id) / "environment.json").read_text(encoding="utf-8"))
    assert said["data"] == {"digits": load_dataset("digits").checksum}
    assert said["packages"]["torch"]
    assert "data" not in (store.record(cell.run_id) or {})
    assert collect(tmp_path / "store")["environment"][0] == said | {"device": "cpu"}


def test_the_embedded_data_are_what_they_were():
    assert load_dataset("digits").checksum == DIGITS


def test_a_checksum_is_that_of_a_file_with_the_same_arrays_and_feels_every_value(tmp_path):
    digits = load_dataset("digits")
    arrays = {key: getattr(digits, key) for key in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(tmp_path / "same.npz", **arrays)
    assert content_checksum(tmp_path / "same.npz") == digits.checksum
    arrays["x_test"] = arrays["x_test"].copy()
    arrays["x_test"].flat[0] ^= 1
    np.savez(tmp_path / "other.npz", **arrays)
    assert content_checksum(tmp_path / "other.npz") != digits.checksum


def test_a_users_file_stands_in_the_description_and_not_here(tmp_path):
    x = np.random.RandomState(0).rand(40, 6).astype(np.float32)
    y = np.arange(40) % 4
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    spec = StreamSpec(name="split", dataset=str(tmp_path / "mine.npz"), scenario="class", experiences=2)
    assert build_stream(spec).data == {}


def test_versions_machine_and_commit_are_told():
    said = environment()
    assert {"cl_ext", "avalanche-lib", "torch", "torchvision", "numpy"} <= set(said["packages"])
    assert all(said["packages"][name] for name in ("cl_ext", "avalanche-lib", "torch"))
    assert said["commit"] is None or len(said["commit"].removesuffix("+changes")) >= 7
    assert json.loads(json.dumps(said)) == said
