"""Writes docs/reproduction.md: numbers that papers have published beside ours.

    python scripts/published.py                                     # the page again, from benchmarks/reproduction/
    python scripts/published.py runs/sequential_mnist_200 --append  # measures what these stores hold, then the page
    python scripts/published.py --check                             # writes nothing: is the page what the files give?

Without --append measurements of stores are printed only. The exit code is 1 where something has to be set right by
hand (a number deviates and published.yaml does not say why) or where --check finds another page, and 2 for a mistake
in a file.
"""

import argparse
import sys
from pathlib import Path

from cl_ext.report.rows.measured import append, read_measured
from cl_ext.report.rows.measuring import measure
from cl_ext.report.rows.published_reader import read_published
from cl_ext.report.rows.reproduction import compare_published, problems
from cl_ext.report.tables.published import reproduction_page
from cl_ext.study.document import StudyError
from cl_ext.study.frame import collect
from cl_ext.study.reader import parse_seeds

ROOT = Path(__file__).resolve().parent.parent
FILES = ROOT / "benchmarks" / "reproduction"


def main() -> int:
    """Returns 0, 1 where something has to be set right, or 2 for a mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", type=Path, nargs="*", help="folders that cl-ext run wrote")
    parser.add_argument("--seeds", help="seeds that were run, where they are not the study's: 0-4 or 0,2,5")
    parser.add_argument("--append", action="store_true", help="appends what was measured to the history")
    parser.add_argument("--check", action="store_true", help="writes nothing, and compares the page with the files")
    parser.add_argument("--published", type=Path, default=FILES / "published.yaml")
    parser.add_argument("--measured", type=Path, default=FILES / "reproduced.csv")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "reproduction.md")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where the stores' cells ran")
    options = parser.parse_args()
    if options.append and not options.stores:
        parser.error("--append takes what stores hold: name at least one")
    try:
        return _run(options)
    except ValueError as error:  # StudyError among them: one sentence with file and entry
        print(f"published: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    published = read_published(options.published)
    if options.stores:
        if unknown := [store for store in options.stores if not (store / "cells").is_dir()]:
            raise StudyError(f"{unknown[0]} is no store: it has no folder cells")
        seeds = None if options.seeds is None else parse_seeds(options.seeds)
        lines, left = measure(published, collect(*options.stores), options.stores, seeds, options.device)
        for line in lines:
            half = "" if line.n == 1 else f" ± {line.half_width:.4f}"
            print(f"{', '.join(line.place)}: {line.mean:.4f}{half}, n = {line.n} (seeds {line.seeds})")
        print("\n".join([*left, f"{len(lines)} measured, {len(left)} left out"]))
        if options.append and not options.check:
            print(f"{len(append(options.measured, lines))} lines appended to {options.measured}")
    measured = read_measured(options.measured)
    comparisons = compare_published(published, measured)
    page = reproduction_page(published, comparisons)
    found = problems(comparisons)
    if options.check:
        if not options.page.exists() or options.page.read_text(encoding="utf-8") != page:
            found.append(f"{options.page} is not what the two files give: python scripts/published.py writes it")
    else:
        options.page.write_text(page, encoding="utf-8")
    for sentence in found:
        print(f"published: {sentence}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
