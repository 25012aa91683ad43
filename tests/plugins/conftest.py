"""Every test here runs on one thread: bit equality is asked for, and more would only get in each other's way."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """One thread, as in the fresh process of the resume test; what it was comes back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
