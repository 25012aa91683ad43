"""Small studies for the tests."""

from pathlib import Path

TINY = """\
study: tiny
stream: {name: split, dataset: digits, experiences: 5}
scenarios: [class]
network: {name: mlp, hidden: [16]}
budget: {optimizer: sgd, lr: 0.1, batch_size: 32, epochs: 1}
seeds: 0-1
methods: [naive, joint]
"""


def write(folder: Path, text: str = TINY, name: str = "tiny.yaml") -> Path:
    """Writes a study file and returns its path."""
    path = folder / name
    path.write_text(text)
    return path
