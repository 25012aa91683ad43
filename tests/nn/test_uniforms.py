"""Numbers drawn ahead are those of one at a time, and what is saved is a generator that has given no more."""

import cl_ext  # noqa: F401
from cl_ext.nn.policies import ReservoirDraws
from cl_ext.nn.uniforms import UniformStream, uniforms

import pytest
import torch
from torch import Tensor


def one_by_one(seed: int, count: int) -> tuple[list[float], Tensor]:
    """The numbers of a plain generator, a call each, and its state afterwards."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.rand((), dtype=torch.float64, generator=generator).item() for _ in range(count)
    ], generator.get_state()


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 600])
def test_a_stream_is_its_generator(count: int) -> None:
    stream = UniformStream(3)
    numbers, state = one_by_one(3, count)
    assert [stream.next() for _ in range(count)] == numbers
    assert torch.equal(stream.get_state(), state)


@pytest.mark.parametrize("count", [0, 5, 256])
def test_a_stream_goes_on_from_a_state(count: int) -> None:
    """From its own, and from one that a generator without draws ahead has saved."""
    stream, expected = UniformStream(3), one_by_one(3, count + 300)[0][count:]
    for _ in range(count):
        stream.next()
    for state in (stream.get_state(), one_by_one(3, count)[1]):
        other = UniformStream(4)
        other.next()
        other.set_state(state)
        assert [other.next() for _ in range(300)] == expected
    assert [stream.next() for _ in range(300)] == expected


def test_many_are_the_same_in_one_call_as_in_several() -> None:
    generator = torch.Generator().manual_seed(5)
    parts = [uniforms(count, generator).tolist() for count in (1, 15, 16, 17, 1000)]
    assert [number for part in parts for number in part] == one_by_one(5, 1049)[0]


CAPACITY = 20


def places(draws: ReservoirDraws, samples: int, batch: int) -> dict[int, int]:
    """Who is in which place after so many samples."""
    held: dict[int, int] = {}
    for seen in range(0, samples, batch):
        where, which = draws.places(seen, min(batch, samples - seen))
        held |= dict(zip(where.tolist(), (which + seen).tolist(), strict=True))
    return held


def algorithm_r(generator: torch.Generator, samples: int) -> dict[int, int]:
    held = {}
    for n in range(samples):
        place = n if n < CAPACITY else int(torch.rand((), dtype=torch.float64, generator=generator) * (n + 1))
        if place < CAPACITY:
            held[place] = n
    return held


@pytest.mark.parametrize("batch", [1, 10, 128, 3000])
@pytest.mark.parametrize("samples", [3, 20, 21, 1043, 1044, 1045, 3000])
def test_a_reservoir_has_used_a_number_for_each_sample_that_came_too_late(batch: int, samples: int) -> None:
    """Places and state are those of algorithm R sample by sample, before, at and after the end of what is ahead."""
    draws, plain = ReservoirDraws(CAPACITY, torch.Generator().manual_seed(1)), torch.Generator().manual_seed(1)
    assert places(draws, samples, batch) == algorithm_r(plain, samples)
    assert torch.equal(draws.state(samples), plain.get_state())


@pytest.mark.parametrize("first", [3, 20, 500, 1044, 1500])
def test_a_second_experience_uses_the_numbers_that_the_first_left(first: int) -> None:
    draws, plain = ReservoirDraws(CAPACITY, torch.Generator().manual_seed(2)), torch.Generator().manual_seed(2)
    algorithm_r(plain, first)
    places(draws, first, 7)
    draws.restart(first)
    assert places(draws, 700, 7) == algorithm_r(plain, 700)
    assert torch.equal(draws.state(700), plain.get_state())
