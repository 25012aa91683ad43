"""`python -m cl_ext` is `cl-ext`."""

from cl_ext._interrupt import interruptible


def main() -> None:
    """The console script `cl-ext`; what it needs is imported where Ctrl-C is heard."""
    with interruptible("cl-ext"):
        from cl_ext import cli

        cli.main()


if __name__ == "__main__":
    main()
