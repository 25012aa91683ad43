"""BibTeX for what a report shows: one source, known keys, every entry as the methods' pages have it."""

import re
import shutil
import subprocess
from pathlib import Path

from cl_ext.methods import METHODS
from cl_ext.metrics import METRICS
from cl_ext.report.web.bibliography import (
    DATASETS,
    SCENARIOS,
    SOFTWARE,
    STATISTICS,
    STREAMS,
    cited,
    entries,
    measure_key,
    parse,
    to_bibtex,
    write_bibtex,
)
from cl_ext.streams import spec as streams

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parents[2]


def test_every_row_but_the_references_cites_papers_that_are_known():
    for name in METHODS.own_names:
        row = METHODS[name]
        assert row.cites or row.reference, name
        assert set(row.cites) <= set(entries()), name


def test_a_rows_papers_are_those_that_its_text_names():
    """First author and year of each entry stand in the row's text."""
    strangers = set()
    for name in METHODS.own_names:
        text = METHODS[name].paper
        for key in METHODS[name].cites if re.search(r"\d{4}[,)]", text) else ():
            entry = re.sub(r"[{}\\`']", "", entries()[key])
            author, year = (re.search(rf"{field} *= *([^\n]+)", entry)[1] for field in ("author", "year"))  # type: ignore[index]
            if author.split(",")[0] not in text or year.strip() not in text:
                strangers.add((name, key))
    # beside the paper: what online EWC's one penalty means, and where the L2 baseline was tuned
    assert strangers == {("ewc_online", "huszar2018note"), ("l2", "hsu2018re")}


def test_every_data_set_kind_of_stream_and_measure_has_an_entry():
    assert set(DATASETS) == set(streams.DATASETS)
    assert set(STREAMS) == set(streams.STREAMS) - {"concat"}
    keys = {*DATASETS.values(), *STREAMS.values(), *STATISTICS.values(), *SOFTWARE, SCENARIOS}
    keys |= {measure_key(name) for name in METRICS}
    assert keys <= set(entries())


def test_the_methods_pages_show_the_same_entries():
    shown = {}
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for block in re.findall(r"```bibtex\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            found = parse(block)
            assert found, page
            for key, entry in found.items():
                assert entry == entries().get(key), f"{page.name}: {key}"
            shown |= found
    assert len(shown) > 30


def test_nothing_is_there_that_nobody_cites():
    used = {key for name in METHODS.own_names for key in METHODS[name].cites}
    used |= {*DATASETS.values(), *STREAMS.values(), *STATISTICS.values(), *SOFTWARE, SCENARIOS}
    used |= {measure_key(name) for name in METRICS}
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    assert [key for key in entries() if key not in used and f"{{{key}," not in pages] == []


def test_the_package_cites_itself_as_citation_cff_says():
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    bare = re.sub(r"[{}\\]", "", entries()["cl_ext"])
    assert said["version"] in bare
    assert said["authors"][0]["name"] in bare
    assert said["title"] in bare


def test_parse_keeps_entries_as_they_stand_and_refuses_two_of_one_key():
    one = "@misc{a,\n  title = {T {with} braces}\n}"
    assert parse(f"words\n{one}\n\nmore words\n{one}\n") == {"a": one}
    with pytest.raises(ValueError, match="two different BibTeX entries have the key 'a'"):
        parse(f"{one}\n@misc{{a,\n  title = {{U}}\n}}\n")


def frame(methods: list[str], **columns) -> pd.DataFrame:
    return pd.DataFrame([{"method": name} | columns for name in methods])


def test_a_report_cites_what_it_shows_and_nothing_else():
    spec = {"stream": {"name": "split", "dataset": "mnist"}}
    found = cited(frame(["naive", "ewc", "er"], accuracy=0.5, forgetting=float("nan"), spec=spec))
    assert found["methods"] == {
        "kirkpatrick2017overcoming": ["ewc"],
        "riemer2019learning": ["er"],
        "chaudhry2019tiny": ["er"],
    }
    assert found["measures and statistics"]["lopezpaz2017gradient"] == ["ACC"]
    assert "chaudhry2018riemannian" not in found["measures and statistics"]  # forgetting is nowhere defined
    assert found["streams and data sets"]["lecun1998gradient"] == ["mnist"]
    assert found["streams and data sets"]["zenke2017continual"] == ["split streams"]
    assert list(found["software"]) == list(SOFTWARE)


def test_a_paper_stands_once_with_all_that_it_is_cited_for():
    text = to_bibtex(frame(["gem", "gem_avalanche"], accuracy=0.5, bwt=0.1))
    assert text.count("@inproceedings{lopezpaz2017gradient,") == 1
    head = text[: text.index("@inproceedings{lopezpaz2017gradient,")].rstrip().splitlines()[-1]
    assert {"gem", "gem_avalanche", "ACC", "BWT"} <= set(re.findall(r"\w+", head))
    assert len(parse(text)) == text.count("@")


def test_concat_streams_cite_each_data_set_and_files_cite_none():
    spec = {"stream": {"name": "concat", "dataset": ["mnist", "svhn", "sha256:ab"]}}
    found = cited(frame(["naive"], spec=spec))["streams and data sets"]
    assert set(found) == {SCENARIOS, "lecun1998gradient", "netzer2011reading"}


def test_a_method_that_nobody_knows_is_named():
    text = to_bibtex(frame(["naive", "somebody@s"]))
    assert text.startswith("Without an entry here: somebody(at)s: no row of the table of methods")
    assert len(parse(text)) == text.count("@")


@pytest.mark.skipif(shutil.which("bibtex") is None, reason="bibtex is not installed")
def test_bibtex_reads_it_without_a_warning(tmp_path):
    specs = [{"stream": {"name": kind, "dataset": name}} for kind in STREAMS for name in DATASETS]
    shown = pd.DataFrame([{"method": name} for name in METHODS.own_names])
    shown["spec"] = [specs[i % len(specs)] for i in range(len(shown))]
    shown = shown.assign(**dict.fromkeys(METRICS, 0.5))
    write_bibtex(shown, tmp_path)
    aux = "\\citation{*}\n\\bibstyle{plain}\n\\bibdata{leaderboard}\n"
    (tmp_path / "page.aux").write_text(aux, encoding="utf-8")
    done = subprocess.run(["bibtex", "page"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "Warning" not in done.stdout, done.stdout
    assert (tmp_path / "page.bbl").read_text(encoding="utf-8").count("\\bibitem") >= len(entries()) - 6
