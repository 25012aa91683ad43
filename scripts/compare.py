"""Runs several studies and reports on all of them together.

    python scripts/compare.py benchmarks/split_mnist.yaml benchmarks/split_fashion.yaml --data-root ../shared/data

Each study has a store of its own under --out, so that `cl-ext run` can go on with it; the report over all is beside.
"""

import argparse
import sys
from pathlib import Path

from cl_ext.report.pages import write_report
from cl_ext.study import Study, StudyError, run
from cl_ext.study.progress import progress_for
from cl_ext.study.reader import parse_seeds

from rich.console import Console


def main() -> int:
    """Returns 0 where every cell is done, 1 where some failed, 2 for a mistake in the studies or the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"))
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--methods", help="only these, separated by commas")
    parser.add_argument("--seeds", help="other seeds than the studies': 0-4 or 0,2,5")
    parser.add_argument("--workers", type=int)
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        methods = arguments.methods.split(",") if arguments.methods else None
        seeds = parse_seeds(arguments.seeds) if arguments.seeds else None
        # all are read before the first runs: a mistake in the last study costs nothing
        studies = [Study.load(path, arguments.data_root).with_selection(methods, seeds) for path in arguments.studies]
        failed = 0
        for study in studies:
            summary = run(
                study,
                arguments.out / study.name,
                workers=arguments.workers,
                data_root=arguments.data_root,
                progress=progress_for(console),
            )
            failed += summary.failed
        written = write_report([arguments.out / study.name for study in studies], arguments.out, console=console)
    except (StudyError, ValueError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    console.print(f"written: {', '.join(str(path) for path in written)}", highlight=False, soft_wrap=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
