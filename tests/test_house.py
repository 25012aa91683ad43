"""The house: what must run without torch does, arrows point down, the torchvision guard works, links resolve."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TORCH_FREE = [
    "cl_ext", "cl_ext.metrics", "cl_ext.report", "cl_ext.report.pages", "cl_ext.report.tables.tuning", "cl_ext.study",
    "cl_ext.study.runner", "cl_ext.study.frame", "cl_ext.study.progress", "cl_ext.study.status", "cl_ext.study.tune",
    "cl_ext.study.tuned", "cl_ext.study.transfer", "cl_ext.study.choice", "cl_ext.study.sensitivity",
    "cl_ext.study.tracking",
    "cl_ext.report.tables.sweeps", "cl_ext.report.rows.published_reader", "cl_ext.report.rows.reproduction",
    "cl_ext.report.tables.published", "cl_ext.methods", "cl_ext.methods.table", "cl_ext.streams",
    "cl_ext.streams.spec", "cl_ext.models", "cl_ext.cli",
]  # fmt: skip


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_what_must_do_without_torch_does():
    """One process: a module that loads torch leaves it in sys.modules for the ones after, and is named."""
    code = (
        "import importlib, sys\n"
        f"for name in {TORCH_FREE!r}:\n"
        "    importlib.import_module(name)\n"
        "    assert not {'torch', 'avalanche', 'torchvision'} & set(sys.modules), name"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("order", ["import torch", "import avalanche", "import torchvision", "import torch, avalanche"])
def test_the_guard_makes_torchvision_importable(order):
    done = python(f"import cl_ext\n{order}\nimport torchvision, avalanche\nimport cl_ext")
    assert done.returncode == 0, done.stderr


def test_without_the_guard_a_cpu_build_fails():
    """The fault that the guard mends; where this test fails, the guard can go."""
    import torch

    if torch.version.cuda is not None:
        pytest.skip("beside a CUDA build of PyTorch torchvision needs no guard")
    assert "operator torchvision::nms does not exist" in python("import torchvision").stderr


def test_arrows_point_down():
    done = subprocess.run(["lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False,
                          executable=Path(sys.executable).parent / "lint-imports")  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_links_in_the_documents_resolve():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    assert pages
    broken = []
    for page in pages:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", target) and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert not broken


def test_no_file_grows_without_a_reason():
    """DESIGN: about 150 lines a file, rarely over 300."""
    lines = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in (ROOT / "cl_ext").rglob("*.py")}
    long = {name: count for name, count in lines.items() if count > 340}
    assert set(long) <= LONG_WITH_A_REASON, long


# the table of methods reads top to bottom
LONG_WITH_A_REASON = {"cl_ext/methods/table_avalanche.py"}
