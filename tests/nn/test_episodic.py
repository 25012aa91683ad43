"""What the memory holds, with what probability, and that it can be saved."""

import io
import json

from cl_ext.nn.episodic import EpisodicMemory

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

N, BATCH, SIZE = 20, 7, 8


def _offer(memory: EpisodicMemory, x: Tensor, batch: int = BATCH, close: bool = True) -> EpisodicMemory:
    """Adds samples whose input, label and task label all say which they are."""
    memory.begin("cpu")
    for part in x.split(batch):
        memory.add(part.float().view(-1, 1), part, part + 1000)
    if close:
        memory.close()
    return memory


def _held(memory: EpisodicMemory, experience: int = 0) -> list[int]:
    x, y, t = memory.experiences()[experience]
    assert torch.equal(x.flatten().long(), y)
    assert torch.equal(t, y + 1000)
    return y.tolist()


@pytest.mark.parametrize("batch", [1, 3, BATCH, 8, 9, N])
def test_a_ring_holds_the_last_samples(batch: int) -> None:
    held = _held(_offer(EpisodicMemory(SIZE), torch.arange(N), batch))
    assert sorted(held) == list(range(N - SIZE, N))
    assert all(sample % SIZE == slot for slot, sample in enumerate(held))


@pytest.mark.parametrize("fill", ["ring", "reservoir"])
def test_fewer_samples_than_places(fill: str) -> None:
    memory = _offer(EpisodicMemory(SIZE, fill), torch.arange(5), 2)  # type: ignore[arg-type]
    assert sorted(_held(memory)) == [0, 1, 2, 3, 4]
    assert memory.sizes == [5]
    assert memory.bytes() == 5 * (4 + 8 + 8)


def _places(batch: int, faulty: bool = False) -> Tensor:
    """How often each of N samples is in the memory, over 1000 seeds."""
    counts = torch.zeros(N)
    for seed in range(1000):
        memory = EpisodicMemory(SIZE, "reservoir", seed)
        held = _held(_offer(memory, torch.arange(N)[: batch if faulty else N], batch))
        assert len(set(held)) == SIZE
        counts[held] += 1
    return counts


@pytest.mark.parametrize("batch", [3, 9, N])
def test_a_reservoir_is_uniform(batch: int) -> None:
    """Inclusions without repetition vary less than the multinomial of the chi-square test: it errs on passing."""
    shrink = 1 - SIZE / N
    counts = _places(batch).numpy()
    statistic = chisquare(counts).statistic / shrink  # of N - 1 degrees of freedom
    assert statistic < 43.8  # the 0.999 quantile


def test_negative_control_one_batch_of_an_experience() -> None:
    """Mammoth's A-GEM adds one batch of a task."""
    assert chisquare(_places(9, faulty=True).numpy()).statistic > 1000


def _three() -> EpisodicMemory:
    memory = EpisodicMemory(SIZE, seed=3)
    for first, count in ((0, SIZE), (100, 2), (200, SIZE)):
        _offer(memory, first + torch.arange(count))
    return memory


def test_a_batch_is_uniform_over_the_union() -> None:
    """Each of the 18 samples, those of the small experience too."""
    memory, counts = _three(), dict.fromkeys([*range(8), 100, 101, *range(200, 208)], 0)
    for _ in range(4000):
        batch = memory.sample(5)
        assert batch is not None
        x, y, t = batch
        assert torch.equal(x.flatten().long(), y)
        assert torch.equal(t, y + 1000)
        assert len(set(y.tolist())) == 5
        for sample in y.tolist():
            counts[sample] += 1
    assert chisquare(list(counts.values())).statistic / (1 - 5 / 18) < 40.8  # 17 degrees of freedom, 0.999


def test_negative_control_a_batch_balanced_over_experiences() -> None:
    """Avalanche's group-balanced loader: as many of each experience."""
    generator, counts = torch.Generator().manual_seed(0), torch.zeros(18)
    bounds = [(0, 8), (8, 10), (10, 18)]
    for _ in range(4000):
        for low, high in bounds:
            counts[low + torch.randperm(high - low, generator=generator)[:2]] += 1
    assert chisquare(counts.numpy()).statistic > 1000


def test_a_batch_larger_than_the_memory_is_all_of_it() -> None:
    batch = _three().sample(18)
    assert batch is not None
    assert sorted(batch[1].tolist()) == [*range(8), 100, 101, *range(200, 208)]


def test_nothing_kept() -> None:
    memory = _offer(EpisodicMemory(0), torch.arange(N))
    assert (len(memory), memory.bytes(), memory.sizes) == (0, 0, [])
    assert memory.sample(3) is None
    assert memory.experiences() == []
    memory = EpisodicMemory(SIZE)
    memory.begin("cpu")
    memory.close()
    assert memory.experiences() == []


def test_only_closed_experiences_are_read_and_an_abandoned_one_is_forgotten() -> None:
    memory = _offer(EpisodicMemory(SIZE), torch.arange(N), close=False)
    assert memory.sample(3) is None
    assert memory.bytes() > 0
    _offer(memory, 50 + torch.arange(3))
    assert _held(memory) == [50, 51, 52]


def test_a_missing_task_label_is_zero() -> None:
    memory = EpisodicMemory(2)
    memory.begin("cpu")
    memory.add(torch.zeros(2, 3), torch.ones(2), None)
    memory.close()
    assert memory.experiences()[0][2].tolist() == [0, 0]


def test_what_is_added_is_copied() -> None:
    memory, x = EpisodicMemory(2), torch.ones(2, 3)
    memory.begin("cpu")
    memory.add(x, torch.ones(2), None)
    x.zero_()
    memory.close()
    assert float(memory.experiences()[0][0].sum()) == 6.0


@pytest.mark.parametrize("fill", ["ring", "reservoir"])
def test_saved_and_restored_it_goes_on_equally(fill: str) -> None:
    def go_on(memory: EpisodicMemory) -> list[Tensor]:
        _offer(memory, 300 + torch.arange(N))
        batches = [memory.sample(4) for _ in range(3)]
        return [part for batch in batches if batch is not None for part in batch]

    memory = EpisodicMemory(SIZE, fill, seed=5)  # type: ignore[arg-type]
    _offer(_offer(memory, torch.arange(N)), 100 + torch.arange(3))
    file = io.BytesIO()
    torch.save(memory.state_dict(), file)
    json.dumps(memory.state_dict(), default=lambda value: value.tolist())
    file.seek(0)
    other = EpisodicMemory(SIZE, fill, seed=6)  # type: ignore[arg-type]
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.sizes == [SIZE, 3]
    assert all(torch.equal(a, b) for a, b in zip(go_on(memory), go_on(other), strict=True))
    empty = EpisodicMemory(SIZE)
    empty.load_state_dict(EpisodicMemory(SIZE).state_dict())
    assert empty.experiences() == []


def test_no_global_random_number_is_drawn() -> None:
    state = torch.get_rng_state()
    _offer(EpisodicMemory(SIZE, "reservoir"), torch.arange(N)).sample(3)
    assert torch.equal(state, torch.get_rng_state())
