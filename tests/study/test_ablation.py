"""Ablations: variants of methods beside a study's rows."""

from cl_ext.study import Store, Study, StudyError, run
from cl_ext.study.ablation import Ablation, accuracies

import pytest

from tests.study.helpers import TINY, write

STUDY = TINY.replace("methods: [naive, joint]", "methods: [naive, er, joint]\nvalues:\n  er: {mem_size: 50}")
TEXT = """\
ablation: tiny_er
study: tiny.yaml
reference: er
methods: [naive, er]
variants:
  none: {method: er, mem_size: 0}
  large: {method: er, mem_size: 100, mem_batch_size: 20}
"""


def load(tmp_path, text=TEXT):
    write(tmp_path, STUDY)
    return Ablation.load(write(tmp_path, text, "ablation.yaml"))


def test_rows_are_the_studys_and_the_variants_over_its_values(tmp_path):
    rows = load(tmp_path).rows()
    assert list(rows) == ["naive", "er", "none", "large"]
    sizes = {name: [cell.hyperparameters.get("mem_size") for cell in cells] for name, cells in rows.items()}
    assert sizes == {"naive": [None, None], "er": [50, 50], "none": [0, 0], "large": [100, 100]}
    assert [cell.seed for cell in rows["large"]] == [0, 1]
    study = Study.load(tmp_path / "tiny.yaml")
    assert {cell.run_id for cell in rows["er"]} < {cell.run_id for cell in study.cells()}  # a store shares them


def test_it_runs_and_is_read(tmp_path):
    ablation = load(tmp_path)
    summary = run(ablation, tmp_path / "store", workers=2)
    assert (summary.ran, summary.failed) == (8, 0)
    found = accuracies(ablation, Store(tmp_path / "store"), "class")
    assert found["none"] == found["naive"]  # er without a memory is fine-tuning
    assert set(found["large"]) == {0, 1}
    assert found["large"] != found["er"]


def test_equal_rows_have_one_cell(tmp_path):
    ablation = load(tmp_path, TEXT + "  same: {method: er, mem_size: 50}\n")
    rows = ablation.rows()
    assert [cell.run_id for cell in rows["same"]] == [cell.run_id for cell in rows["er"]]
    assert len(ablation.cells()) == 8


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("reference: er", "reference: gem", "line 3: reference is 'gem'; it takes one of naive, er, none, large"),
        ("mem_size: 0", "memsize: 0", "line 6: the variant none: memsize is no hyper-parameter of er"),
        ("mem_size: 0", "mem_size: -1", "line 6: the variant none: mem_size"),
        ("method: er, mem_size: 0", "mem_size: 0", "line 6: the variant none is {'mem_size': 0}; it takes a method"),
        ("none:", "naive:", "line 6: the variant naive has the name of one of the study's methods"),
        ("method: er, mem_size: 0", "method: err", "line 6: the variant none: "),
        ("[naive, er]", "naive", "line 4: methods is 'naive'; it takes a list"),
        ("reference: er\n", "", "reference is missing"),
        ("study: tiny.yaml", "study: no.yaml", "no.yaml: there is no such file"),
    ],
)
def test_mistakes_are_named(tmp_path, old, new, message):
    assert old in TEXT
    with pytest.raises(StudyError) as caught:
        load(tmp_path, TEXT.replace(old, new, 1))
    assert message in str(caught.value)
