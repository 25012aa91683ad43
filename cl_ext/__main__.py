"""`python -m cl_ext` is `cl-ext`."""

from cl_ext.cli import main

main()
