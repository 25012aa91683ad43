"""What the rehearsal memory holds, with what probability, what is drawn from it, and that it can be saved."""

import io
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from fractions import Fraction
from math import comb
from typing import Any

from cl_ext.nn import policies as module
from cl_ext.nn.memory import RehearsalMemory
from cl_ext.nn.policies import class_balanced_choice, last_writers, reservoir_draws

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

N, SIZE = 60, 10
POLICIES = ["reservoir", "ring", "class_balanced"]


def offer(memory: RehearsalMemory, samples: Tensor, batches: int | Iterable[int] = 7) -> RehearsalMemory:
    """Adds samples whose fields all say which they are; their labels are the number modulo 3."""
    for part in samples.split(list(batches) if isinstance(batches, Iterable) else batches):
        memory.add(x=part.float().view(-1, 1, 1).expand(-1, 2, 1), y=part % 3, number=part)
    return memory


def numbers(fields: dict[str, Tensor]) -> list[int]:
    """Which samples there are; their fields have to belong together."""
    if not fields:
        return []
    number = fields["number"]
    assert fields["x"].shape == (len(number), 2, 1)
    assert torch.equal(fields["x"][:, 1, 0].long(), number)
    assert torch.equal(fields["y"], number % 3)
    return number.tolist()


def held(memory: RehearsalMemory) -> list[int]:
    return numbers(memory.fields)


# ---- the reservoir -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("batch", [1, 2, 7, SIZE, SIZE + 1, N])
def test_batches_write_what_the_algorithm_writes_sample_by_sample(batch: int) -> None:
    """Algorithm R with a loop and one random number a sample, from an equal generator: the same, place by place."""
    for seed in range(20):
        generator, places = torch.Generator().manual_seed(seed), list(range(SIZE))
        for n in range(SIZE, N):
            place = int(torch.rand((), dtype=torch.float64, generator=generator) * (n + 1))
            if place < SIZE:
                places[place] = n
        assert held(offer(RehearsalMemory(SIZE, seed=seed), torch.arange(N), batch)) == places


def outcomes(sizes: dict[int, int], batches: list[int]) -> Counter[tuple[int, ...]]:
    """How often each content results from N=5 samples in 2 places, over all draws: `sizes[n]` values for sample n."""
    found: Counter[tuple[int, ...]] = Counter()
    for draws in itertools.product(*(range(sizes[n]) for n in range(2, 5))):
        memory, left = RehearsalMemory(2), list(draws)

        def given(seen: int, count: int, _: Any, left: list[int] = left) -> Any:
            taken = left[:count]
            del left[:count]
            return np.array(taken)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "reservoir_draws", given)
            offer(memory, torch.arange(5), batches)
        assert not left
        found[tuple(held(memory))] += 1
    return found


def uniform_over_subsets(found: Counter[tuple[int, ...]]) -> bool:
    """Whether each of the 10 pairs of 5 samples has probability 1/10, and each place its share."""
    total = sum(found.values())
    subsets: Counter[frozenset[int]] = Counter()
    for content, count in found.items():
        subsets[frozenset(content)] += count
    exact = all(Fraction(count, total) == Fraction(1, comb(5, 2)) for count in subsets.values())
    return exact and len(subsets) == comb(5, 2)


BATCHES = [[1] * 5, [2, 3], [3, 2], [1, 4], [5]]


@pytest.mark.parametrize("batches", BATCHES, ids=str)
def test_the_exact_distribution_by_enumeration(batches: list[int]) -> None:
    """All 3 * 4 * 5 equally likely draws; the order of the places too is that of one sample at a time."""
    found = outcomes({2: 3, 3: 4, 4: 5}, batches)
    assert uniform_over_subsets(found)
    assert found == outcomes({2: 3, 3: 4, 4: 5}, [1] * 5)


@pytest.mark.parametrize("batches", BATCHES, ids=str)
def test_negative_control_a_place_below_the_number_seen(batches: list[int]) -> None:
    """A known bug: the n-th sample's place is drawn from 0..n-1, so that late samples are kept too often."""
    assert not uniform_over_subsets(outcomes({2: 2, 3: 3, 4: 4}, batches))


@pytest.mark.parametrize("batches", [[2, 3], [5]], ids=str)
def test_negative_control_the_first_of_a_batch_stays(batches: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def first_writers(places: Any, capacity: int) -> Any:
        kept, last = last_writers(places[::-1], capacity)
        return kept, len(places) - 1 - last

    monkeypatch.setattr(module, "last_writers", first_writers)
    assert not uniform_over_subsets(outcomes({2: 3, 3: 4, 4: 5}, batches))


PLACES, TRIALS, OFFERED = 3, 3000, 30
LOW, HIGH = chi2.ppf([0.0005, 0.9995], OFFERED - 1) / (OFFERED - 1)


def unevenness(batch: int) -> float:
    """Chi-square of how often each sample offered is held, over its degrees of freedom.

    A choice without repetition varies less than the multinomial by 1 - PLACES / OFFERED, which is taken out.
    """
    counts = torch.zeros(OFFERED)
    for seed in range(TRIALS):
        kept = held(offer(RehearsalMemory(PLACES, seed=seed), torch.arange(OFFERED), batch))
        assert len(set(kept)) == PLACES
        counts[kept] += 1
    expected = TRIALS * PLACES / OFFERED
    statistic = float(((counts - expected) ** 2).sum()) / expected / (1 - PLACES / OFFERED)
    return statistic / (OFFERED - 1)


@pytest.mark.parametrize("batch", [7, OFFERED])
def test_every_sample_is_held_equally_often(batch: int) -> None:
    assert LOW < unevenness(batch) < HIGH


@pytest.mark.parametrize("batch", [7, OFFERED])
def test_negative_control_of_the_frequencies(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The known bug of the enumeration, in the same check: far outside."""
    monkeypatch.setattr(module, "reservoir_draws", lambda seen, count, g: reservoir_draws(seen - 1, count, g))
    assert unevenness(batch) > 2 * HIGH


def test_a_draw_is_uniform_from_0_to_n() -> None:
    """Every value of 0..n occurs, n itself too, and none above."""
    generator = torch.Generator().manual_seed(0)
    draws = np.stack([reservoir_draws(2, 3, generator) for _ in range(4000)])
    for column, n in enumerate((2, 3, 4)):
        counts = np.bincount(draws[:, column], minlength=n + 1)
        assert len(counts) == n + 1
        expected = 4000 / (n + 1)
        assert float(((counts - expected) ** 2).sum() / expected) < chi2.ppf(0.999, n)


# ---- all policies --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("batch", [1, 3, 7])
def test_the_first_samples_are_held_in_order_and_never_too_many(policy: Any, batch: int) -> None:
    memory = RehearsalMemory(SIZE, policy, seed=1)
    for part in torch.arange(N).split(batch):
        offer(memory, part)
        seen = int(part[-1]) + 1
        assert (memory.seen, len(memory)) == (seen, min(seen, SIZE))
        kept = held(memory)
        assert len(kept) == len(set(kept)) == len(memory)
        if seen <= SIZE:
            assert kept == list(range(seen))


@pytest.mark.parametrize("batch", [1, 3, 7, SIZE, SIZE + 1, N])
def test_a_ring_holds_the_newest(batch: int) -> None:
    memory = offer(RehearsalMemory(SIZE, "ring"), torch.arange(N - 3), batch)
    kept = held(memory)
    assert sorted(kept) == list(range(N - 3 - SIZE, N - 3))
    assert [sample % SIZE for sample in kept] == list(range(SIZE))


# ---- balanced classes ----------------------------------------------------------------------------------------------
def stream(seed: int, counts: tuple[int, ...] = (40, 3, 9, 25)) -> Tensor:
    """Labels, in a random order that lets some classes come late."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    late = labels + 2 * torch.rand(len(labels), generator=generator)
    return labels[late.argsort()]


def one_by_one(labels: list[int], keys: list[float], capacity: int) -> set[int]:
    """The algorithm sample by sample: add it, and if that is one too many drop, of the largest class, the least key.

    Of equally large classes it is the one of the largest label.
    """
    kept: list[int] = []
    for n in range(len(labels)):
        kept.append(n)
        if len(kept) > capacity:
            sizes = Counter(labels[k] for k in kept)
            victim = max(sizes, key=lambda label: (sizes[label], label))
            kept.remove(min((k for k in kept if labels[k] == victim), key=lambda k: keys[k]))
    return set(kept)


def balanced(labels: Tensor, capacity: int, batch: int, seed: int) -> RehearsalMemory:
    memory = RehearsalMemory(capacity, "class_balanced", seed)
    for y, number in zip(labels.split(batch), torch.arange(len(labels)).split(batch), strict=True):
        memory.add(y=y, number=number)
    return memory


@pytest.mark.parametrize("batch", [1, 4, 11, 77])
def test_balanced_classes_as_sample_by_sample(batch: int) -> None:
    for seed, capacity in itertools.product(range(8), (1, 5, 16, 30)):
        labels = stream(seed)
        keys = torch.rand(len(labels), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        memory = balanced(labels, capacity, batch, seed)
        assert set(memory.fields["number"].tolist()) == one_by_one(labels.tolist(), keys.tolist(), capacity)
        assert torch.equal(labels[memory.fields["number"]], memory.fields["y"])


@pytest.mark.parametrize(
    ("capacity", "sizes"),
    [(8, [2, 2, 2, 2]), (9, [3, 2, 2, 2]), (16, [5, 3, 4, 4]), (30, [9, 3, 9, 9]), (77, [40, 3, 9, 25]), (2, [1, 1])],
)
def test_classes_are_as_equal_as_can_be(capacity: int, sizes: list[int]) -> None:
    """A class has all it ever had, or as many as the largest, to within one; extras go to the first labels."""
    memory = balanced(stream(3), capacity, 5, 0)
    assert memory.fields["y"].bincount().tolist() == sizes


def within_class(keep_newest: bool) -> float:
    """Chi-square over degrees of freedom of how often each of 40 samples of a class is held, 10 places for it."""
    counts, labels, trials = torch.zeros(40), stream(5, (40, 40)), 600
    of_class = (labels == 0).nonzero().flatten()
    for seed in range(trials):
        if keep_newest:
            kept = torch.from_numpy(class_balanced_choice(labels.numpy(), np.arange(80.0), 20)).nonzero().flatten()
        else:
            kept = balanced(labels, 20, 9, seed).fields["number"]
        counts[torch.isin(of_class, kept)] += 1
    assert counts.sum() == 10 * trials
    expected = trials / 4
    return float(((counts - expected) ** 2).sum() / expected / (1 - 1 / 4) / 39)


def test_within_a_class_every_sample_is_held_equally_often() -> None:
    low, high = chi2.ppf([0.0005, 0.9995], 39) / 39
    assert low < within_class(keep_newest=False) < high
    assert within_class(keep_newest=True) > high


def test_balanced_classes_need_labels() -> None:
    with pytest.raises(ValueError, match="needs the labels as the field y, got x"):
        RehearsalMemory(3, "class_balanced").add(x=torch.zeros(2, 1))


# ---- what is drawn -------------------------------------------------------------------------------------------------
def draws(memory: RehearsalMemory, count: int, times: int) -> Iterator[list[int]]:
    for _ in range(times):
        batch = memory.sample(count)
        assert batch is not None
        yield numbers(batch)


def test_a_draw_is_uniform_and_without_repetition() -> None:
    memory = offer(RehearsalMemory(SIZE, seed=4), torch.arange(SIZE))
    pairs: Counter[frozenset[int]] = Counter()
    for batch in draws(memory, 2, 4500):
        assert len(batch) == 2
        pairs[frozenset(batch)] += 1
    expected = 4500 / comb(SIZE, 2)
    assert sum((count - expected) ** 2 for count in pairs.values()) / expected < chi2.ppf(0.999, comb(SIZE, 2) - 1)
    assert len(pairs) == comb(SIZE, 2)


@pytest.mark.parametrize("count", [SIZE - 3, SIZE, 1000])
def test_more_than_there_are_is_all_of_them(count: int) -> None:
    memory = offer(RehearsalMemory(SIZE), torch.arange(SIZE - 3))
    assert list(draws(memory, count, 1)) == [list(range(SIZE - 3))]


def test_nothing_held() -> None:
    state = torch.get_rng_state()
    for memory in (RehearsalMemory(0), RehearsalMemory(SIZE)):
        assert memory.sample(3) is None
        assert memory.sample_behind({"x": torch.zeros(1, 2)}, 3) is None
        assert (len(memory), memory.seen, memory.bytes(), memory.fields) == (0, 0, 0, {})
    memory = offer(RehearsalMemory(0), torch.arange(N))
    assert (memory.sample(3), len(memory), memory.bytes(), memory.fields) == (None, 0, 0, {})
    memory = RehearsalMemory(SIZE)
    memory.add(x=torch.zeros(0, 2))
    assert memory.sample(1) is None
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("count", [1, 4, SIZE, 1000])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64], ids=["same type", "another type"])
def test_samples_behind_a_batch_are_those_that_a_draw_gives(count: int, kind: torch.dtype) -> None:
    memory, twin = (RehearsalMemory(SIZE, seed=4) for _ in range(2))
    for start in range(0, 3 * SIZE, 5):
        y = torch.arange(start, start + 5)
        for one in (memory, twin):
            one.add(x=y[:, None, None] * torch.ones(2, 3), y=y, group=-y)
    batch = {"y": torch.tensor([7, 8]), "x": torch.full((2, 2, 3), 0.5, dtype=kind)}
    for _ in range(3):  # the second and third draw too
        joined, drawn = memory.sample_behind(batch, count), twin.sample(count)
        assert joined is not None
        assert drawn is not None
        assert joined.keys() == {"x", "y", "group"}
        for name, part in batch.items():
            assert torch.equal(joined[name], torch.cat([part, drawn[name]])), name
        assert torch.equal(joined["group"], drawn["group"])  # the batch has none
        for part in joined.values():  # copies, all of them
            part.zero_()
        assert torch.equal(batch["y"], torch.tensor([7, 8]))
        assert all(torch.equal(part, twin.fields[name]) for name, part in memory.fields.items())
    assert torch.equal(memory._reads.get_state(), twin._reads.get_state())


def test_behind_a_batch_gradients_of_its_inputs_are_kept() -> None:
    memory = RehearsalMemory(SIZE)
    memory.add(x=torch.ones(SIZE, 2))
    x = torch.zeros(3, 2, requires_grad=True)
    joined = memory.sample_behind({"x": x}, 4)
    assert joined is not None
    joined["x"].sum().backward()
    assert torch.equal(x.grad, torch.ones(3, 2))


def test_samples_of_another_shape_are_never_put_behind_a_batch() -> None:
    memory = RehearsalMemory(SIZE)
    memory.add(x=torch.ones(SIZE, 2, 3))
    for other in (torch.ones(4, 2, 5), torch.ones(4, 3, 2), torch.ones(4, 6)):
        with pytest.raises(RuntimeError, match=r"Sizes of tensors must match|same number of dimensions"):
            memory.sample_behind({"x": other}, 4)


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_read_never_moves_what_is_written_and_the_other_way_round(policy: Any) -> None:
    quiet, busy = (RehearsalMemory(SIZE, policy, seed=2) for _ in range(2))
    for part in torch.arange(N).split(7):
        offer(quiet, part)
        offer(busy, part)
        busy.sample(3)
    assert held(quiet) == held(busy)
    other = offer(RehearsalMemory(SIZE, policy, seed=2), torch.arange(SIZE))
    longer = offer(RehearsalMemory(SIZE, policy, seed=2), torch.arange(2 * N), 5)
    for _ in range(5):  # the same places
        first, second = other.sample(4), longer.sample(4)
        assert first is not None
        assert second is not None
        assert [held(longer)[place] for place in first["number"].tolist()] == second["number"].tolist()


def test_seeds_differ_and_the_two_generators_never_meet() -> None:
    assert held(offer(RehearsalMemory(SIZE, seed=0), torch.arange(N))) != held(
        offer(RehearsalMemory(SIZE, seed=1), torch.arange(N))
    )
    memory = RehearsalMemory(SIZE, seed=3)
    assert not torch.equal(torch.rand(9, generator=memory._writes), torch.rand(9, generator=memory._reads))


def test_no_global_random_number_is_drawn() -> None:
    state = torch.get_rng_state()
    for policy in POLICIES:
        offer(RehearsalMemory(SIZE, policy), torch.arange(N)).sample(3)  # type: ignore[arg-type]
    assert torch.equal(state, torch.get_rng_state())


# ---- closed experiences ----------------------------------------------------------------------------------------------
FIRSTS = (0, 100, 200)
"""Numbers of the first samples of three experiences, of 10, 3 and 10 samples."""


def closed(policy: Any = "ring", seed: int = 3) -> RehearsalMemory:
    memory = RehearsalMemory(SIZE, policy, seed)
    for first, count in zip(FIRSTS, (SIZE, 3, SIZE), strict=True):
        offer(memory, torch.arange(first, first + count)).close()
    return memory


UNION = [*range(10), *range(100, 103), *range(200, 210)]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("batch", [1, 7, SIZE + 1, N])
def test_each_experience_has_all_places_for_itself(policy: Any, batch: int) -> None:
    """What is closed stays, and of the next experience so much is held as a new memory would."""
    memory, expected = RehearsalMemory(SIZE, policy), []
    for first in FIRSTS:
        offer(memory, torch.arange(first, first + N), batch)
        expected.append(held(memory))
        assert len(set(expected[-1])) == SIZE
        assert set(expected[-1]) <= set(range(first, first + N))
        if policy == "ring":
            assert sorted(expected[-1]) == list(range(first + N - SIZE, first + N))
        if policy == "class_balanced":
            assert sorted(memory.fields["y"].bincount().tolist()) == [3, 3, 4]
        memory.close()
        assert (len(memory), memory.seen, memory.fields) == (0, 0, {})
    assert [numbers(fields) for fields in memory.closed] == expected
    assert memory.sizes == [SIZE] * 3


def late_unevenness(batch: int) -> float:
    """As `unevenness`, of an experience that comes after a closed one."""
    counts, trials = torch.zeros(OFFERED), 1500
    for seed in range(trials):
        memory = offer(RehearsalMemory(PLACES, seed=seed), torch.arange(100, 100 + OFFERED))
        memory.close()
        offer(memory, torch.arange(OFFERED), batch).close()
        counts[numbers(memory.closed[1])] += 1
    expected = trials * PLACES / OFFERED
    statistic = float(((counts - expected) ** 2).sum()) / expected / (1 - PLACES / OFFERED)
    return statistic / (OFFERED - 1)


@pytest.mark.parametrize("batch", [7, OFFERED])
def test_every_sample_of_a_later_experience_is_held_equally_often(batch: int) -> None:
    assert LOW < late_unevenness(batch) < HIGH


def test_negative_control_the_count_goes_on_over_experiences(monkeypatch: pytest.MonkeyPatch) -> None:
    """One n for all experiences: the first samples of a later one, which fill the places, are kept too often."""

    def draws(seen: int, count: int, generator: torch.Generator) -> Any:
        return reservoir_draws(seen + OFFERED, count, generator)

    monkeypatch.setattr(module, "reservoir_draws", draws)
    assert late_unevenness(7) > 2 * HIGH


def test_a_draw_is_uniform_over_the_union_of_the_closed_ones() -> None:
    """Each of the 23 samples, those of the small experience too."""
    memory, counts = closed(), dict.fromkeys(UNION, 0)
    for _ in range(4000):
        batch = memory.sample(5, closed=True)
        assert batch is not None
        drawn = numbers(batch)
        assert len(set(drawn)) == 5
        for number in drawn:
            counts[number] += 1
    expected = 4000 * 5 / 23
    statistic = sum((count - expected) ** 2 for count in counts.values()) / expected / (1 - 5 / 23)
    assert statistic < chi2.ppf(0.999, 22)


def test_negative_control_a_draw_balanced_over_experiences() -> None:
    """Avalanche's group-balanced loader: as many of each experience."""
    memory, counts = closed(), dict.fromkeys(UNION, 0)
    for fields in memory.closed:
        single = offer(RehearsalMemory(SIZE, seed=1), fields["number"])
        for batch in draws(single, 2, 4000):
            for number in batch:
                counts[number] += 1
    expected = 4000 * 6 / 23
    assert sum((count - expected) ** 2 for count in counts.values()) / expected > 1000


@pytest.mark.parametrize("count", [23, 1000])
def test_a_draw_of_more_than_is_closed_is_all_of_it(count: int) -> None:
    batch = closed().sample(count, closed=True)
    assert batch is not None
    assert sorted(numbers(batch)) == UNION


def test_only_what_is_closed_is_read_and_what_is_cleared_is_forgotten() -> None:
    memory = offer(RehearsalMemory(SIZE), torch.arange(N))
    assert memory.sample(3, closed=True) is None
    assert memory.closed == []
    memory.clear()
    offer(memory, torch.arange(100, 103)).close()
    assert [numbers(fields) for fields in memory.closed] == [[100, 101, 102]]
    assert memory.sample(3) is None


def test_an_experience_of_nothing_leaves_no_trace() -> None:
    for memory in (RehearsalMemory(SIZE), offer(RehearsalMemory(0), torch.arange(N))):
        memory.close()
        assert (memory.closed, memory.sizes, memory.bytes(), memory.sample(1, closed=True)) == ([], [], 0, None)


def test_bytes_of_closed_experiences_are_of_their_samples() -> None:
    memory = RehearsalMemory(SIZE)
    memory.add(x=torch.zeros(3, 2), y=torch.zeros(3, dtype=torch.int64))
    assert memory.bytes() == SIZE * (8 + 8)  # places
    memory.close()
    assert memory.bytes() == 3 * (8 + 8)
    memory.add(x=torch.zeros(3, 2), y=torch.zeros(3, dtype=torch.int64))
    assert memory.bytes() == (3 + SIZE) * (8 + 8)


def test_what_is_closed_keeps_its_fields_and_may_be_widened() -> None:
    memory = RehearsalMemory(4)
    memory.add(z=torch.ones(2, 2))
    memory.close()
    memory.add(z=torch.full((1, 2), 2.0))
    assert memory.widen("z", 3, -1.0)
    assert not memory.widen("z", 3, -1.0)
    assert memory.closed[0]["z"].tolist() == [[1.0, 1.0, -1.0]] * 2
    assert memory.fields["z"].tolist() == [[2.0, 2.0, -1.0]]
    memory.close()
    memory.add(x=torch.ones(2, 2))
    with pytest.raises(ValueError, match="those of the first batch"):
        memory.close()


@pytest.mark.parametrize("policy", POLICIES)
def test_with_closed_experiences_saved_and_restored_it_goes_on_equally(policy: Any) -> None:
    memory = offer(closed(policy), torch.arange(300, 330))
    memory.sample(3, closed=True)
    file = io.BytesIO()
    torch.save(memory.state_dict(), file)
    json.dumps(memory.state_dict(), default=lambda value: value.tolist())
    file.seek(0)
    state = torch.load(file, weights_only=True)
    other = RehearsalMemory(SIZE, policy, seed=6)
    other.load_state_dict(state)
    state["closed"]["x"].zero_()
    assert other.sizes == [SIZE, 3, SIZE]
    for each in (memory, other):
        offer(each, torch.arange(330, 360)).close()
        offer(each, torch.arange(400, 440)).close()
    assert [numbers(fields) for fields in memory.closed] == [numbers(fields) for fields in other.closed]
    for _ in range(3):
        first, second = memory.sample(4, closed=True), other.sample(4, closed=True)
        assert first is not None
        assert second is not None
        assert numbers(first) == numbers(second)
    with pytest.raises(ValueError, match="a memory of mem_size 4 cannot load one of"):
        RehearsalMemory(4, policy).load_state_dict(closed(policy).state_dict())


# ---- tensors -------------------------------------------------------------------------------------------------------
def test_what_is_added_and_what_is_drawn_are_copies() -> None:
    memory, x = RehearsalMemory(4), torch.ones(3, 2, requires_grad=True)
    memory.add(x=x)
    with torch.no_grad():
        x.zero_()
    for count in (2, 3):
        batch = memory.sample(count)
        assert batch is not None
        assert not batch["x"].requires_grad
        assert float(batch["x"].min()) == 1.0
        batch["x"].zero_()
    assert float(memory.fields["x"].min()) == 1.0


def test_types_and_bytes() -> None:
    memory = RehearsalMemory(5)
    memory.add(
        x=torch.zeros(2, 3, dtype=torch.uint8), y=torch.zeros(2, dtype=torch.int64), z=torch.zeros(2, 4).double()
    )
    batch = memory.sample(1)
    assert batch is not None
    assert [part.dtype for part in batch.values()] == [torch.uint8, torch.int64, torch.float64]
    assert memory.bytes() == 5 * (3 + 8 + 32)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"x": torch.zeros(2, 3), "y": torch.zeros(3)}, "must be of one length, got {'x': 2, 'y': 3}"),
        ({}, "must be of one length, got {}"),
        ({"x": torch.zeros(2, 3)}, "those of the first batch"),
        ({"x": torch.zeros(2, 4), "y": torch.zeros(2)}, "those of the first batch"),
        ({"x": torch.zeros(2, 3), "y": torch.zeros(2).double()}, "those of the first batch"),
        ({"x": torch.zeros(2, 3), "z": torch.zeros(2)}, "those of the first batch"),
    ],
)
def test_other_fields_than_the_first_batch_had(fields: dict[str, Tensor], message: str) -> None:
    memory = RehearsalMemory(5)
    memory.add(x=torch.zeros(2, 3), y=torch.zeros(2))
    with pytest.raises(ValueError, match=message):
        memory.add(**fields)
    assert memory.seen == 2


def test_a_field_that_grows() -> None:
    memory = RehearsalMemory(4)
    assert not memory.widen("z", 3, 0.0)
    memory.add(x=torch.ones(2, 5), z=torch.ones(2, 2))
    assert not memory.widen("z", 2, -1.0)
    assert memory.widen("z", 3, -1.0)
    memory.add(x=torch.ones(1, 5), z=torch.full((1, 3), 2.0))
    assert memory.fields["z"].tolist() == [[1.0, 1.0, -1.0], [1.0, 1.0, -1.0], [2.0, 2.0, 2.0]]
    assert memory.fields["x"].shape == (3, 5)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("first", [SIZE - 4, 33])
def test_saved_and_restored_it_goes_on_equally(policy: Any, first: int) -> None:
    """After a part fill and after a full one; the other's seed does not matter."""
    memory = offer(RehearsalMemory(SIZE, policy, seed=5), torch.arange(first))
    memory.sample(3)
    file = io.BytesIO()
    torch.save(memory.state_dict(), file)
    json.dumps(memory.state_dict(), default=lambda value: value.tolist())
    file.seek(0)
    other = RehearsalMemory(SIZE, policy, seed=6)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.bytes() == memory.bytes()
    for each in (memory, other):
        offer(each, torch.arange(first, first + N), 6)
    assert held(memory) == held(other)
    assert list(draws(memory, 4, 3)) == list(draws(other, 4, 3))


def test_an_empty_memory_can_be_saved_and_another_size_is_refused() -> None:
    memory = RehearsalMemory(SIZE)
    memory.load_state_dict(RehearsalMemory(SIZE, seed=9).state_dict())
    assert (len(memory), memory.fields) == (0, {})
    state = offer(RehearsalMemory(SIZE), torch.arange(N)).state_dict()
    with pytest.raises(ValueError, match="a memory of mem_size 4 cannot load one of 60 samples"):
        RehearsalMemory(4).load_state_dict(state)


def test_loaded_state_is_copied() -> None:
    state = offer(RehearsalMemory(SIZE), torch.arange(N)).state_dict()
    memory = RehearsalMemory(SIZE)
    memory.load_state_dict(state)
    state["fields"]["x"].zero_()
    assert float(memory.fields["x"].max()) > 0
