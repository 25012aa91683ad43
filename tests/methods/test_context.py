"""What a cell's seed fixes: the same for every method, and another seed gives something else."""

import cl_ext  # noqa: F401
from cl_ext.methods import Budget, Context
from cl_ext.models import NetworkSpec
from cl_ext.streams import StreamSpec, build_stream

import pytest
import torch


@pytest.fixture(scope="module")
def benchmark():
    return build_stream(StreamSpec("split", "digits", "task", experiences=5))


def context(benchmark, seed, **network):
    return Context(benchmark, "task", NetworkSpec(**({"hidden": (8,)} | network)), Budget(), seed)


def test_equal_architectures_get_equal_weights_and_other_seeds_get_others(benchmark):
    """A seed of more than 32 bits would not do: PyTorch's CPU generator drops the upper ones."""
    states = [context(benchmark, seed).model().state_dict() for seed in (0, 0, 1, 2)]
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name])
        assert not torch.equal(tensor, states[2][name])
        assert not torch.equal(states[3][name], states[2][name])


def test_purposes_and_seeds_have_generators_of_their_own(benchmark):
    draws = {
        (seed, purpose): torch.rand(3, generator=context(benchmark, seed).generator(purpose)).tolist()
        for seed in (0, 1)
        for purpose in ("a", "b")
    }
    assert len({tuple(draw) for draw in draws.values()}) == 4


def test_making_a_model_leaves_the_global_generator_alone(benchmark):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    context(benchmark, 0).model()
    assert torch.equal(torch.rand(3), expected)


def test_the_context_knows_the_stream(benchmark):
    known = context(benchmark, 0)
    assert (known.classes, known.experiences, known.input_shape) == (10, 5, (1, 8, 8))
    assert known.classes_per_experience == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


def test_a_growing_head_is_padded_with_what_no_argmax_takes(benchmark):
    known = context(benchmark, 0, head="growing")
    logits = known.pad(known.model()(torch.zeros(3, 1, 8, 8)))
    assert logits.shape == (3, 10)
    assert torch.isneginf(logits[:, 2:]).all()
    assert torch.isfinite(logits[:, :2]).all()


def test_the_loss_of_a_task_is_that_of_a_head_of_its_own(benchmark):
    """Masked cross-entropy of the shared head equals plain cross-entropy of the task's own columns."""
    criterion = context(benchmark, 0).criterion()
    logits = torch.randn(6, 10, requires_grad=True)
    targets = torch.tensor([0, 1, 2, 3, 8, 9])
    loss = criterion(logits, targets)
    loss.backward()
    own = logits.detach().reshape(6, 5, 2)[torch.arange(6), targets // 2]
    torch.testing.assert_close(loss.detach(), torch.nn.functional.cross_entropy(own, targets % 2))
    assert (logits.grad.reshape(6, 5, 2)[torch.arange(6), (targets // 2 + 1) % 5] == 0).all(), "other heads don't move"
