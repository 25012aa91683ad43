"""Generative replay: a perfect generator makes it weighted ER, by hand; what is trained when, with which labels.

`Bank` is the perfect generator: it keeps the real samples that it is trained on, and gives them back.
"""

import copy
import math
from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from cl_ext.methods.criterion import ScenarioCrossEntropy
from cl_ext.models.vae import VAE
from cl_ext.nn.answers import hard_labels, label_entropy, soft_loss
from cl_ext.nn.divergence import DivergedError
from cl_ext.plugins import GenerativeReplayPlugin
from cl_ext.plugins.generative_replay import share_of_new

import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.training.plugins import GenerativeReplayPlugin as StockPlugin
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from tests.methods import helpers
from tests.plugins import common
from tests.plugins.test_gem import Spy, flat, train

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
LR, BATCH, EPOCHS, GENERATOR_BATCH = 0.1, 7, 12, 12
TASKS = [[0, 1], [2, 3], [4, 5], [6, 7]]


class Log(list[Any]):
    """A list that a copy of its owner shares."""

    def __deepcopy__(self, memo: Any) -> "Log":
        return self


class Bank(nn.Module):
    """Keeps every real sample, by value; `log` has ("train", batch) and ("sample", experiences known, samples)."""

    def __init__(self, log: Log | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.held = torch.empty(0, common.FEATURES).double()
        self.log = Log() if log is None else log
        self.trained = 0

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        self.log.append(("train", x.clone()))
        self.held = torch.cat([self.held, x.double()]).unique(dim=0)
        return self.weight.square()

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        x = self.held[torch.randint(len(self.held), (n,), generator=generator)]
        self.log.append(("sample", len(self.held), x))
        return x


def separate(per_class: int = 10, task_labels: bool = False) -> tuple[Any, dict[bytes, int]]:
    """Four experiences of two classes far from each other, and the true label of every sample."""
    centres = 6.0 * torch.randn(common.CLASSES, common.FEATURES, generator=torch.Generator().manual_seed(5))
    y = torch.arange(common.CLASSES).repeat(per_class)
    x = (centres[y] + 0.2 * torch.randn(len(y), common.FEATURES, generator=torch.Generator().manual_seed(6))).double()
    dataset = common.labelled(x / 4, y)
    stream = nc_benchmark(dataset, dataset, common.EXPERIENCES, task_labels=task_labels, shuffle=False).train_stream
    return stream, {row.numpy().tobytes(): int(label) for row, label in zip(x / 4, y, strict=True)}


def truth(x: Tensor, known: dict[bytes, int]) -> Tensor:
    return torch.tensor([known[row.double().numpy().tobytes()] for row in x])


def samples_of(experience: Any) -> tuple[Tensor, Tensor]:
    pairs = [experience.dataset[n] for n in range(len(experience.dataset))]
    return torch.stack([pair[0] for pair in pairs]), torch.tensor([int(pair[1]) for pair in pairs])


def plugin(**changes: Any) -> GenerativeReplayPlugin:
    options = {
        "generator_iterations": 8,
        "generator_batch_size": GENERATOR_BATCH,
        "latent": 2,
        "hidden": (5,),
        "seed": 3,
    }
    return GenerativeReplayPlugin(**(options | changes))


def distance(a: list[Tensor], b: list[Tensor]) -> float:
    assert len(a) == len(b)
    return max(float((p - q).norm() / q.norm()) for p, q in zip(a, b, strict=True))


# ---- the loss --------------------------------------------------------------------------------------------------------
def weighted_er(stream: Any, replays: list[Tensor], known: dict[bytes, int], fault: str = "") -> list[Tensor]:
    """Two separate passes a step, `r CE(real) + (1 - r) CE(replayed, true labels)`, r = 1/i, SGD written out."""
    torch.manual_seed(0)
    model = common.mlp().double()
    steps, draws = [], iter(replays)
    for i, experience in enumerate(stream, 1):
        x, y = samples_of(experience)
        r = 0.5 if fault == "r is a half" and i > 1 else 1 / i
        for _ in range(EPOCHS):
            for rows in torch.arange(len(x)).split(BATCH):
                z = model(x[rows])
                loss = r * cross_entropy(z, y[rows])
                if i > 1:
                    replayed = next(draws)
                    z = model(replayed) if fault != "outputs of the real batch" else z
                    labels = truth(replayed, known)[: len(z)]
                    loss = loss + (1.0 if fault == "weights sum to more" else 1 - r) * cross_entropy(
                        z[: len(labels)], labels
                    )
                gradients = torch.autograd.grad(loss, list(model.parameters()))
                with torch.no_grad():
                    for p, gradient in zip(model.parameters(), gradients, strict=True):
                        p -= LR * gradient
                steps.append(flat(model.parameters()))
    return steps


def test_a_perfect_generator_and_a_teacher_that_is_right_make_it_weighted_er() -> None:
    stream, known = separate()
    replays: list[Tensor] = []
    steps: list[Tensor] = []

    def keep(strategy: Any) -> None:
        if len(strategy.mb_y) > BATCH:
            x, y = strategy.mb_x[-BATCH:], strategy.mb_y[-BATCH:]
            assert torch.equal(y, truth(x, known))  # the old solver is right
            replays.append(x.clone())

    after = Spy("after_update", lambda strategy: steps.append(flat(strategy.model.parameters())))
    plugins = [plugin(generator=Bank()), Spy("before_forward", keep), after]
    train(plugins, common.mlp, stream, train_epochs=EPOCHS)
    assert len(replays) == 3 * EPOCHS * 3
    assert distance(steps, weighted_er(stream, replays, known)) < 1e-7  # Avalanche's loss is float32
    for fault in ("r is a half", "outputs of the real batch", "weights sum to more"):
        assert distance(steps, weighted_er(stream, replays, known, fault)) > 1e-3, fault


class Fixed(nn.Module):
    """A generator that always gives the same samples."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x, self.weight = x, nn.Parameter(torch.zeros(()))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.x[:n]

    def generate(self, n: int) -> Tensor:
        return self.x[:n]

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.weight.square()


class Readout(nn.Module):
    """Logits are the samples; the weight is there to be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight


def test_the_replay_loss_is_of_the_replayed_samples_outputs_and_avalanches_is_not() -> None:
    """Logits (2, 0) for a real sample of class 0; (0, 1) for a replayed one, which the old solver calls class 1."""
    real, replayed = torch.tensor([[2.0, 0.0]] * 4), torch.tensor([[0.0, 1.0]] * 4)
    own = math.log(1 + math.exp(-2))  # CE of the real samples
    right, wrong = math.log(1 + math.exp(-1)), math.log(1 + math.exp(2))  # 0.313 and 2.127
    first = nc_benchmark(*[common.labelled(real, torch.zeros(4).long())] * 2, 1, False, shuffle=False).train_stream[0]
    seen: list[float] = []
    arguments = {"train_mb_size": 4, "train_epochs": 1}

    model = Readout()
    stock = StockPlugin(SimpleNamespace(model=Fixed(replayed)), False, is_weighted_replay=True, weight_replay_loss=0.5)
    keep = Spy("before_backward", lambda strategy: seen.append(strategy.loss.item()))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    common.strategy(model, [stock, keep], optimizer=optimizer, **arguments).train(first)
    assert seen == [pytest.approx(own + 0.5 * wrong)]
    assert seen != [pytest.approx(own + 0.5 * right)]

    seen.clear()
    model = Readout()
    ours = plugin(generator=Fixed(replayed), r=0.4)
    ours._trained.add({0: [0, 1]}, nn.CrossEntropyLoss(), 2, torch.device("cpu"))
    ours.experiences = 1
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    common.strategy(model, [ours, keep], optimizer=optimizer, **arguments).train(first)
    assert seen == [pytest.approx(0.4 * own + 0.6 * right)]


def test_the_weights_sum_to_one() -> None:
    """With a criterion that is 0.7 at every batch, and has the cross-entropy's gradient, the loss stays 0.7."""

    def criterion(z: Tensor, y: Tensor) -> Tensor:
        loss = cross_entropy(z, y)
        return 0.7 + loss - loss.detach()

    for r in ("1/i", 0.15):
        losses: list[float] = []
        keep = Spy("before_backward", lambda strategy, losses=losses: losses.append(strategy.loss.item()))
        common.run([plugin(r=r), keep], criterion=criterion)
        assert losses == pytest.approx([0.7] * len(losses))
    assert [share_of_new("1/i", i) for i in (1, 2, 3)] == [1, Fraction(1, 2), Fraction(1, 3)]
    assert [share_of_new(0.15, i) for i in (1, 2, 3)] == [1, Fraction(3, 20), Fraction(3, 20)]


def test_without_replay_it_is_naive_and_trains_no_generator() -> None:
    off = plugin(r=1.0)
    assert common.same(common.weights(common.run([off]).model), common.weights(common.run([]).model))
    assert off.generator is None
    assert off.extra_bytes() == 0


def test_batch_norm_sees_real_and_replayed_samples_together() -> None:
    """One pass: the layer's batch statistics are those of the union, on which the network is evaluated."""
    stream, _ = separate()
    inputs: list[Tensor] = []
    sizes: list[int] = []

    def watch(strategy: Any) -> None:
        norm = common.layer(strategy.model, nn.BatchNorm1d)
        if not norm._forward_hooks:
            norm.register_forward_hook(lambda _, given, __: inputs.append(given[0].detach()))

    after = Spy("after_forward", lambda s: sizes.append(len(s.mb_output)) or sizes.append(len(s.mb_x)))
    train([Spy("before_forward", watch), plugin(generator=Bank()), after], common.normed, stream[:2], train_epochs=1)
    assert [len(x) for x in inputs] == [7, 7, 6, 14, 14, 13]
    assert sizes == [7, 7, 7, 7, 6, 6] * 2  # metrics see the real part


# ---- the generator ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("r", ["1/i", 0.3])
def test_the_generator_is_trained_first_on_the_union_with_its_share(r: Any) -> None:
    stream, known = separate()
    log = Log()
    step = Spy("before_forward", lambda strategy: log.append(("step",)))
    begin = Spy("before_training_exp", lambda strategy: log.append(("begin",)))
    steps = 9
    ours = plugin(r=r, generator=Bank(log), generator_iterations=steps)
    train([begin, step, ours], common.mlp, stream, train_epochs=1)
    begins = [n for n, entry in enumerate(log) if entry[0] == "begin"]
    for i, start in enumerate(begins, 1):
        entries = log[start + 1 : (*begins, len(log))[i]]
        kinds = [entry[0] for entry in entries]
        first = kinds.index("step")
        assert kinds[:first].count("train") == steps
        assert "train" not in kinds[first:], "the generator is ready before the solver's first step"
        batches = [truth(entry[1], known) for entry in entries[:first] if entry[0] == "train"]
        assert [len(batch) for batch in batches] == [GENERATOR_BATCH] * steps
        own = [int((batch // 2 == i - 1).sum()) for batch in batches]
        share = float(share_of_new(r, i))
        for k in range(1, steps + 1):  # real samples so far, to within one
            assert k * GENERATOR_BATCH * share - 1 < sum(own[:k]) <= k * GENERATOR_BATCH * share
        assert all(int(batch.max()) // 2 < i for batch in batches)
        # the old generator serves both: it holds the samples of before, whatever the new one has learnt meanwhile
        drawn = [entry for entry in entries if entry[0] == "sample"]
        assert len({entry[1] for entry in drawn}) == (i > 1)
        assert all(int(truth(entry[2], known).max()) // 2 < i - 1 for entry in drawn)
        assert kinds[first:].count("sample") == (3 if i > 1 else 0)


def test_every_real_sample_is_shown_once_before_any_comes_again() -> None:
    stream, _ = separate()
    log = Log()
    train([plugin(generator=Bank(log), generator_iterations=5)], common.mlp, stream[:1], train_epochs=1)
    rows = torch.cat([entry[1] for entry in log])
    assert len(rows) == 60
    shown = [row.numpy().tobytes() for row in rows]
    assert all(len(set(shown[start : start + 20])) == 20 for start in (0, 20, 40))
    assert shown[:20] != shown[20:40]


def test_training_the_generator_leaves_solver_and_random_state_alone() -> None:
    before: dict[str, Any] = {}

    def state(strategy: Any) -> dict[str, Any]:
        flags = [module.training for module in strategy.model.modules()]
        return {"weights": common.weights(strategy.model), "flags": flags, "random": torch.get_rng_state()}

    def compare(strategy: Any) -> None:
        after = state(strategy)
        assert common.same(before["weights"], after["weights"])
        assert before["flags"] == after["flags"]
        assert torch.equal(before["random"], after["random"])
        before["compared"] = before.get("compared", 0) + 1

    spies = Spy("before_training_exp", lambda s: before.update(state(s))), Spy("before_training_exp", compare)
    common.run([spies[0], plugin(), spies[1]], common.normed)
    assert before["compared"] == common.EXPERIENCES


def test_the_next_generator_starts_as_the_old_one_and_goes_on() -> None:
    """Each experience's training changes it, and the old one that replays is the one before, bit for bit."""
    ours = plugin()
    ends: list[dict[str, Tensor]] = []
    olds: list[dict[str, Tensor]] = []
    keep = Spy("after_training_exp", lambda s: ends.append(common.weights(ours.generator)))
    look = Spy(
        "before_training_epoch", lambda s: ours._old_generator and olds.append(common.weights(ours._old_generator))
    )
    common.run([ours, keep, look], train_epochs=1)
    assert len(olds) == 3
    assert all(common.same(old, end) for old, end in zip(olds, ends, strict=False))
    assert not any(common.same(a, b) for a, b in pairwise(ends))


def test_likelihood_follows_the_range_of_the_first_experience() -> None:
    assert common_vae(common.benchmark().train_stream).likelihood == "gaussian"
    x, y = torch.rand(16, common.FEATURES), torch.arange(8).repeat_interleave(2)
    inside = nc_benchmark(*[common.labelled(x, y)] * 2, 4, False, shuffle=False).train_stream
    assert common_vae(inside).likelihood == "bernoulli"
    x[8:] += 1
    outside = nc_benchmark(*[common.labelled(x, y)] * 2, 4, False, shuffle=False).train_stream
    with pytest.raises(ValueError, match="experience 3 has values outside"):
        common_vae(outside)


def common_vae(stream: Any) -> VAE:
    ours = plugin()
    common.train(common.strategy(common.mlp(), [ours], train_epochs=1), stream)
    assert isinstance(ours.generator, VAE)
    return ours.generator


def test_a_generator_that_diverges_is_named() -> None:
    with pytest.raises(
        DivergedError, match=r"the generator's loss is .* at step \d+ of 8; its learning rate is 1e\+30"
    ):
        common.run([plugin(generator_lr=1e30)])


# ---- the labels ------------------------------------------------------------------------------------------------------
def test_hard_labels_never_name_a_class_that_was_not_trained() -> None:
    """The old solver is made to prefer unseen classes by far; a plain argmax would name them."""
    labels: list[Tensor] = []
    plain: list[Tensor] = []
    ours = plugin(replay_batch_size=9)

    def prefer_unseen(strategy: Any) -> None:
        with torch.no_grad():
            strategy.model[2].bias[2 * ours.experiences :] += 100.0

    def keep(strategy: Any) -> None:
        if ours.experiences:
            labels.append(strategy.mb_y[-9:].clone())
            plain.append(ours._old_solver.teacher(strategy.mb_x[-9:], None).logits.argmax(1))  # type: ignore[union-attr]
            assert int(labels[-1].max()) < 2 * ours.experiences

    common.run([Spy("before_training_exp", prefer_unseen), ours, Spy("before_forward", keep)], train_epochs=1)
    assert len(torch.cat(labels).unique()) > 2
    assert int(torch.cat(plain).min()) >= 2


@pytest.mark.parametrize("labels", ["hard", "soft"])
def test_task_incremental_each_sample_gets_an_even_draw_of_the_past_tasks(labels: Any) -> None:
    """One shared head and a loss over a task's classes: the answer is the drawn task's."""
    ours = plugin(labels=labels, replay_batch_size=50)
    drawn: list[Tensor] = []

    def keep(strategy: Any) -> None:
        answers = ours._answers
        if answers is None:
            return
        assert torch.equal(answers.y // 2, answers.group)
        z = answers.z_t
        mine = torch.stack([z[n, 2 * g : 2 * g + 2].argmax() + 2 * g for n, g in enumerate(answers.group.tolist())])
        assert torch.equal(mine, answers.y)
        if ours.experiences == 3:
            drawn.append(answers.group)

    common.run([ours, Spy("before_forward", keep)], kind="nc-tasks", criterion=ScenarioCrossEntropy(TASKS))
    counts = torch.cat(drawn).bincount(minlength=3)
    expected = counts.sum() / 3
    assert float(((counts - expected) ** 2 / expected).sum()) < 13.8  # chi^2, 2 degrees, 0.1 %
    assert ours._trained.groups() == [(0, task) for task in TASKS]


def test_domain_incremental_one_group_of_all_classes() -> None:
    ours = plugin()
    helpers.fit([ours], "domain", experiences=3)
    assert ours._trained.groups() == [(0, [0, 1])]


def test_the_soft_loss_has_hintons_gradient_and_pushes_new_classes_down() -> None:
    """By z it is T (q - p) / M, with p zero at the new classes."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(5, 6, generator=generator).double().requires_grad_()
    z_t = torch.randn(5, 4, generator=generator).double()
    allowed = torch.tensor([True, True, True, False]).expand(5, -1)
    for T in (1.0, 2.0, 5.0):
        value = soft_loss(z, z_t, allowed, None, T)
        p = torch.zeros(5, 6).double()
        p[:, :3] = (z_t[:, :3] / T).softmax(1)
        q = (z / T).softmax(1).detach()
        kl = torch.where(p > 0, p * (p.clamp(min=1e-300).log() - q.log()), 0.0).sum()
        torch.testing.assert_close(value, T**2 * kl / 5)
        (gradient,) = torch.autograd.grad(value, z)
        torch.testing.assert_close(gradient, T * (q - p) / 5)
        assert bool((gradient[:, 3:] > 0).all())


def test_the_soft_loss_of_a_sure_teacher_is_the_cross_entropy_at_its_label() -> None:
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).double()
    y = torch.tensor([0, 1, 2, 3, 1])
    everything = torch.ones(5, 4, dtype=torch.bool)
    sure = 500.0 * one_hot(y, 4).double()
    torch.testing.assert_close(soft_loss(z, sure, everything, None, 1.0), cross_entropy(z, y))
    assert torch.equal(hard_labels(sure, everything), y)
    assert soft_loss(z, z, everything, None, 3.0).item() == pytest.approx(0.0, abs=1e-12)


def test_the_soft_loss_reads_what_the_criterion_reads() -> None:
    """Task-incremental: outputs of other tasks have no gradient."""
    z = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[:, 2:4] = True
    (gradient,) = torch.autograd.grad(soft_loss(z, -z.detach(), mask, mask, 2.0), z)
    assert not gradient[:, [0, 1, 4, 5]].any()
    assert gradient[:, 2:4].all()


def test_the_entropy_shows_a_collapse() -> None:
    assert label_entropy(torch.tensor([5, 5, 5, 5, 0]), 4) == pytest.approx(1.0)
    assert label_entropy(torch.tensor([20, 0, 0, 0]), 4) == 0.0
    assert label_entropy(torch.tensor([2, 2, 0, 0]), 4) == pytest.approx(0.5)
    assert label_entropy(torch.tensor([3]), 1) == 1.0


# ---- state and arguments ---------------------------------------------------------------------------------------------
def test_a_restored_generator_gives_the_same_samples() -> None:
    ours = plugin()
    common.run([ours])
    other, state = plugin(), torch.get_rng_state()
    other.load_state_dict(copy.deepcopy(ours.state_dict()))
    assert torch.equal(state, torch.get_rng_state())
    assert isinstance(ours.generator, VAE)
    assert isinstance(other.generator, VAE)
    draws = [torch.Generator().manual_seed(1) for _ in range(2)]
    assert torch.equal(ours.generator.sample(4, draws[0]), other.generator.sample(4, draws[1]))
    given = plugin(generator=Bank())
    for one, another in ((given, ours), (given, plugin()), (ours, given)):
        with pytest.raises(ValueError, match="another kind of generator"):
            one.load_state_dict(another.state_dict())


def test_what_is_published() -> None:
    runner = common.run([plugin()])
    values = {name: points[1] for name, points in runner.evaluator.get_all_metrics().items()}
    for name in ("GeneratorLoss", "Share", "Replay", "LabelEntropy"):
        found = {e: values.get(f"GenerativeReplay_{name}/train_phase/train_stream/Exp{e:03d}") for e in range(4)}
        assert (found[0] is None) == (name == "LabelEntropy")
        assert all(found[e] for e in (1, 2, 3))
        if name == "Share":
            assert [points[-1] for points in found.values()] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])  # type: ignore[index]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"r": 0.0}, ValueError, r"r must be in \(0, 1\], got 0.0"),
        ({"r": 1.1}, ValueError, r"r must be in \(0, 1\], got 1.1"),
        ({"r": "1/2"}, TypeError, "r must be a number, got '1/2'"),
        ({"labels": "firm"}, ValueError, "labels must be one of 'hard', 'soft', got 'firm'"),
        ({"temperature": 0}, ValueError, r"temperature must be in \(0, inf\), got 0"),
        ({"replay_batch_size": 0}, ValueError, "replay_batch_size must be an integer >= 1, got 0"),
        ({"generator_epochs": 0}, ValueError, "generator_epochs must be an integer >= 1, got 0"),
        ({"generator_iterations": 1.5}, TypeError, "generator_iterations must be an integer, got 1.5"),
        ({"generator_lr": -1.0}, ValueError, r"generator_lr must be in \(0, inf\), got -1.0"),
        ({"latent": 0}, ValueError, "latent must be an integer >= 1, got 0"),
        ({"hidden": (4, 0)}, ValueError, "hidden must be an integer >= 1, got 0"),
        ({"seed": -1}, ValueError, "seed must be an integer >= 0, got -1"),
        ({"generator": nn.Linear(2, 2)}, TypeError, "generator must be a module with sample and loss, got Linear"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"GenerativeReplayPlugin: {message}"):
        GenerativeReplayPlugin(**arguments)
