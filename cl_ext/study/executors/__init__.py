"""Ways to run cells: each runs the same `run_cell` and writes the same store."""
