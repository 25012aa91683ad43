"""Prints what methods reach on each task at the end, their worst forgetting, and differences from a row, by seed.

    python scripts/by_task.py runs/split_mnist_architecture --reference separate --late 2

Differences are means over the seeds that both rows have, with the 95 % Student-t interval of the paired differences.
With --sizes it prints how parameters, training time a task and memory grow over the stream instead.
"""

import argparse
import sys
from pathlib import Path

from cl_ext.report.by_task import by_task_tables, size_tables
from cl_ext.study.frame import collect


def main() -> int:
    """Returns 0, or 2 where the store has no such row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", type=Path, nargs="+", help="folders that cl-ext run wrote; several are merged")
    parser.add_argument("--reference", default="separate", help="the row that others are compared with")
    parser.add_argument("--late", type=int, default=2, metavar="N", help="the last N tasks have a column (default 2)")
    parser.add_argument("--sizes", action="store_true", help="growth of parameters, time a task and memory instead")
    options = parser.parse_args()
    if options.late < 1:
        parser.error(f"--late is {options.late}; it takes a whole number of at least 1")
    try:
        frame = collect(*options.stores)
        frame = frame if frame.empty else frame[frame["study"] != ""]
        tables = size_tables(frame) if options.sizes else by_task_tables(frame, options.reference, options.late)
    except ValueError as error:
        print(f"by_task: {error}", file=sys.stderr)
        return 2
    print("\n\n".join(tables))
    return 0


if __name__ == "__main__":
    sys.exit(main())
