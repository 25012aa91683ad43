"""The union that a generator is trained on: how many samples are real, how many steps a pass takes."""

from fractions import Fraction

from cl_ext.nn.divergence import DivergedError
from cl_ext.nn.generators import real_counts, train_on_union, union_steps

import pytest
import torch
from torch import Tensor, nn


class Recorder(nn.Module):
    """A generator that keeps its batches; its loss is `(w - 3)^2`."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.w, self.scale, self.batches = nn.Parameter(torch.zeros(())), scale, []

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        self.batches.append(x)  # type: ignore[operator]
        return self.scale * (self.w - 3).square()


@pytest.mark.parametrize("share", [Fraction(1), Fraction(1, 2), Fraction(1, 3), Fraction(3, 10), Fraction(1, 7)])
@pytest.mark.parametrize("size", [1, 5, 32])
def test_the_share_is_kept_to_within_one_sample_at_every_step(share: Fraction, size: int) -> None:
    counts = real_counts(share, size, 50)
    for k in range(1, 51):
        assert 0 <= k * size * share - sum(counts[:k]) < 1
    assert all(0 <= count <= size for count in counts)
    assert max(counts) - min(counts) <= 1


def test_a_pass_over_the_union_shows_every_real_sample_once() -> None:
    """100 real samples that are a third of 300: 10 batches of 30."""
    assert union_steps(100, Fraction(1, 3), 30, 1) == 10
    assert union_steps(100, Fraction(1), 30, 3) == 10
    assert union_steps(1, Fraction(1), 30, 1) == 1
    x, model = torch.arange(100.0)[:, None], Recorder()
    replay = lambda n: torch.full((n, 1), -1.0)  # noqa: E731
    train_on_union(model, x, replay, Fraction(1, 3), 30, 10, 0.1, torch.Generator().manual_seed(0))
    rows = torch.cat(model.batches).flatten()  # type: ignore[arg-type]
    assert rows[rows >= 0].sort().values.tolist() == list(range(100))
    assert int((rows < 0).sum()) == 200


def test_it_returns_the_loss_of_the_last_tenth_and_leaves_eval_mode() -> None:
    model = Recorder()
    loss = train_on_union(model, torch.zeros(4, 1), None, Fraction(1), 2, 500, 0.05, torch.Generator())
    assert 0 <= loss < 1e-3
    assert not model.training
    assert model.w.item() == pytest.approx(3, abs=0.02)


def test_a_loss_that_is_not_finite_stops_it_by_name_within_a_hundred_steps() -> None:
    model = Recorder(float("inf"))
    with pytest.raises(DivergedError, match=r"the generator's loss is (inf|nan) at step 100 of 500"):
        train_on_union(model, torch.zeros(4, 1), None, Fraction(1), 2, 500, 0.1, torch.Generator())
    assert len(model.batches) == 100  # type: ignore[arg-type]
