"""CPG: exact across growth, prunes and grows as its decisions say, and takes them on held-out samples."""

import itertools
import json
import math
from typing import Any

import cl_ext  # noqa: F401
from cl_ext.models import NetworkSpec
from cl_ext.models.expansion import ExpandableNetwork, expandable
from cl_ext.nn.masked import MaskedScheme, weights_of
from cl_ext.nn.ownership import Hold
from cl_ext.nn.picking import INITIAL
from cl_ext.plugins import CPGPlugin, PackNetPlugin
from cl_ext.plugins.cpg_goal import fresh, single_task_accuracy
from cl_ext.plugins.cpg_growth import grow, grown_widths

import pytest
import torch
from torch import Tensor, nn

from tests.methods.helpers import make, tiny_stream
from tests.plugins.common import QuietNaive
from tests.plugins.masking import deep, image_network, stream, watched

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")

SMALL: dict[str, Any] = {"goal": 0.0, "max_width": 1.0, "ladder": (0.3, 0.6), "prune_epochs": 0.5,
                         "recover_epochs": 0.5, "retrain_epochs": 1.0, "mask_every": 1, "train_floor": 0.0,
                         "mask_lr": 5e-3, "retrain_mask_lr": 5e-3, "hold_out": 0.2, "tasks": 5}  # fmt: skip


def small(**changes: Any) -> CPGPlugin:
    """A plugin whose stages are short."""
    return CPGPlugin(**(SMALL | changes))


def _weights(model: ExpandableNetwork) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---- nothing is forgotten ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_earlier_tasks_stay_bit_identical_across_growth(optimizer: str) -> None:
    """The goal is out of reach: the first task grows the network twice; ladder and third stage follow."""
    plugin = small(goal={0: 0.0, 1: 2.0, 2: 2.0}, max_width=2.0, grow_step=0.5)
    runner, watch = watched(plugin, optimizer=optimizer)
    assert watch.looks > 20
    assert watch.drifts == 0
    assert plugin.width == 2.0
    assert [len(d["attempts"]) for d in plugin.decisions] == [1, 3, 1]
    sizes = [runner.model.scheme.sizes.get(task)["4.weight"].tolist() for task in range(3)]
    assert sizes == [[12, 14], [16, 19], [16, 19]]
    assert all(bool(torch.isfinite(p).all()) for p in runner.model.parameters())


def test_earlier_tasks_stay_bit_identical_in_a_growing_cnn() -> None:
    experiences = stream((1, 8, 8), samples=24).train_stream
    plugin = small(goal={0: 0.0, 1: 2.0, 2: 0.0}, max_width=1.5, ladder=(0.5,))
    _, watch = watched(plugin, image_network("cnn"), "adam", experiences, (1, 8, 8))
    assert watch.drifts == 0
    assert plugin.width == 1.5


def test_a_residual_network_is_not_grown_but_all_else_works() -> None:
    experiences = stream((1, 8, 8), samples=24).train_stream[:2]
    with pytest.raises(TypeError, match=r"only grows chains of layers; set max_width to 1 .* BasicBlock"):
        watched(small(max_width=1.5), image_network("resnet18"), "sgd", experiences, (1, 8, 8))
    plugin = small(ladder=(0.5,))
    _, watch = watched(plugin, image_network("resnet18"), "sgd", experiences, (1, 8, 8))
    assert watch.looks > 0
    assert watch.drifts == 0
    assert plugin.decisions[1]["ratio"] == 0.5
    with pytest.raises(ValueError, match="cpg can't train this network"):
        make("cpg", "task", network=NetworkSpec("resnet18", width=2))


class _NoHold(CPGPlugin):
    """Negative control: gradients are masked, the optimizer's step is not undone."""

    def hold(self) -> None:
        super().hold()
        self._masked, self._hold = self._hold, None

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        masked: Hold | None = self._masked
        if masked is not None:
            masked.mask_gradients()


class _SharedNorm(CPGPlugin):
    """Negative control: batch norm is all tasks'."""

    def own_tensors(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in super().own_tensors().items() if "running" not in name}


@pytest.mark.parametrize("broken", [_NoHold, _SharedNorm])
def test_the_watch_sees_what_forgets(broken: Any) -> None:
    _, watch = watched(broken(**SMALL))
    assert watch.drifts > 0


def test_a_task_answers_as_it_did_in_training() -> None:
    """Its picking, width and own weights, read from masks, give what the live network gave."""

    class _Looking(CPGPlugin):
        def close(self, strategy: Any) -> None:
            model = strategy.model
            flags = [module.training for module in model.modules()]
            with torch.no_grad():
                live = model.eval()(x, self._task)
                super().close(strategy)
                closed = model(x, self._task)
            for module, flag in zip(model.modules(), flags, strict=True):
                module.training = flag
            assert torch.equal(live, closed)
            seen.append(self._task)

    x, seen = torch.randn(5, 8), []
    plugin = _Looking(**SMALL | {"mask_lr": 0.02})
    watched(plugin)
    assert seen == [0, 1, 2]
    assert plugin.decisions[2]["picked"] < 1.0


# ---- owners and pruning ----------------------------------------------------------------------------------------------


def test_owners_are_a_partition_and_constant() -> None:
    plugin, experiences, seen = small(goal={0: 0.0, 1: 2.0, 2: 0.0}, max_width=1.5), list(stream().train_stream), []
    runner, _ = watched(plugin, experiences=experiences[:1])
    for experience in [None, *experiences[1:]]:
        if experience is not None:
            runner.train(experience, eval_streams=[])
        owners = runner.model.scheme.owners
        seen.append({name: owners[name].clone() for name in owners.names})
    for position, (before, after) in enumerate(itertools.pairwise(seen), 1):
        for name, owner in after.items():
            corner = owner[tuple(slice(0, n) for n in before[name].shape)]
            old = before[name] > 0
            assert torch.equal(corner[old], before[name][old])
            assert set(corner[~old].tolist()) <= {0, position + 1}
            assert int((owner == position).sum()) == int((before[name] == position).sum())
    for name, weight in weights_of(runner.model.features).items():
        assert seen[-1][name].shape == weight.shape
        assert bool((weight[seen[-1][name] == 0] == 0).all())


@pytest.mark.parametrize("ladder", [(0.1, 0.3), (0.25,), (0.1, 0.2, 0.7)])
def test_each_rung_frees_its_share_of_each_layer(ladder: tuple[float, ...]) -> None:
    class _Rungs(CPGPlugin):
        def accuracies(self, strategy: Any) -> tuple[float, float]:
            free = {name: int(self.scheme.owners.free(name).sum()) for name in self.scheme.owners.names}
            own = {name: int(owned.sum()) for name, owned in self.owned().items()}
            shares.append([(free[name], own[name]) for name in own])
            return super().accuracies(strategy)

    shares: list[list[tuple[int, int]]] = []
    plugin = _Rungs(**SMALL | {"ladder": ladder, "mask_every": 2, "retrain_epochs": 0.0})
    watched(plugin, experiences=stream().train_stream[:2])
    per_task = 1 + len(ladder)  # the unpruned network, then the rungs
    assert len(shares) == 2 * per_task
    for number, counts in enumerate(shares):
        ratio = (0.0, *ladder)[number % per_task]
        for free, own in counts:
            assert abs(free - ratio * (free + own)) <= 0.5 + 1e-9


def test_pruning_rises_along_the_schedule_within_a_rung() -> None:
    ratios: list[tuple[int, float]] = []

    class _Spied(CPGPlugin):
        def compact(self, ratio: float) -> None:
            ratios.append((self._step, ratio))
            super().compact(ratio)

    # 32 samples, of which 6 are held out: 26 by 7 are four steps an epoch
    settings = {"ladder": (0.4, 0.8), "prune_epochs": 2.0, "recover_epochs": 1.0, "mask_every": 3}
    watched(_Spied(**SMALL | settings), experiences=stream().train_stream[:1])
    expected = [(s, end + (start - end) * (1 - s / 8) ** 3) for start, end in ((0, 0.4), (0.4, 0.8)) for s in (3, 6, 8)]
    assert ratios == [(step, pytest.approx(ratio)) for step, ratio in expected]


# ---- special cases ---------------------------------------------------------------------------------------------------


def _all_picked(network: Any) -> bool:
    """Whether each task but the first reads every entry of earlier ones."""
    scheme = network.scheme
    found = []
    for position, task in enumerate(scheme.tasks[1:], start=2):
        for name, bits in scheme.picked(task).items():
            earlier = (scheme.owners[name] > 0) & (scheme.owners[name] < position)
            found.append(int(bits.sum()) == int(earlier.sum()))
    return bool(found) and all(found)


def _without_picks(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if ".picks." not in name}


def test_picking_all_with_one_jump_is_packnet() -> None:
    """No picking, no growth, one rung without gradual pruning, nothing held out: the same weights, bit for bit."""
    cpg = small(ladder=(0.5,), prune_epochs=0.0, recover_epochs=2.0, retrain_epochs=0.0, hold_out=0.0, mask_lr=0.0)
    ours, _ = watched(cpg)
    packnet, _ = watched(PackNetPlugin(0.5, retrain_epochs=2))
    a, b = _weights(ours.model), _weights(packnet.model)
    assert _all_picked(ours.model)
    assert _same(_without_picks(a), b)


def test_pae_is_masks_that_do_not_learn() -> None:
    still, _ = watched(small(mask_lr=0.0, retrain_mask_lr=0.0))
    pae, _ = watched(small(picking=False))
    a, b = _weights(still.model), _weights(pae.model)
    assert _all_picked(still.model)
    assert _same(_without_picks(a), b)
    learned, _ = watched(small())
    assert not all(torch.equal(b[name], tensor) for name, tensor in _weights(learned.model).items() if name in b)


def test_without_a_ladder_later_tasks_only_pick_as_in_piggyback() -> None:
    """The first task keeps all weights; the backbone is constant, and only masks, biases, norms and heads learn."""
    experiences = list(stream().train_stream)
    plugin = small(ladder=(), mask_lr=0.02, retrain_epochs=0.0)
    runner, _ = watched(plugin, experiences=experiences[:1])
    backbone = {name: weight.detach().clone() for name, weight in weights_of(runner.model.features).items()}
    for experience in experiences[1:]:
        runner.train(experience, eval_streams=[])
    assert _same(backbone, {name: w.detach() for name, w in weights_of(runner.model.features).items()})
    assert runner.model.scheme.owners.counts(3)[1:] == [sum(w.numel() for w in backbone.values()), 0, 0]
    assert all(decision["picked"] < 1.0 for decision in plugin.decisions[1:])


# ---- goals, growth, ratios -------------------------------------------------------------------------------------------


def test_a_goal_of_zero_never_grows_and_prunes_to_the_top_of_the_ladder() -> None:
    plugin = small(ladder=(0.5, 0.9, 0.95), max_width=2.0)
    runner, _ = watched(plugin)
    assert plugin.width == 1.0
    assert [decision["ratio"] for decision in plugin.decisions] == [0.95, 0.95, 0.95]
    assert [decision["forced"] for decision in plugin.decisions] == [False, False, False]
    assert next(iter(weights_of(runner.model.features).values())).shape == (14, 8)


def test_a_goal_out_of_reach_grows_to_the_largest_width_and_then_forces_the_ratio() -> None:
    """Of 3 tasks the first may keep 0.3 of what is free, the second 0.5, the last all."""
    ladder = tuple(i / 10 for i in range(1, 10))
    plugin = small(goal=1.01, max_width=1.5, ladder=ladder, tasks=3, retrain_epochs=0.0, train_floor=1.0)
    watched(plugin)
    assert plugin.width == 1.5
    assert [d["ratio"] for d in plugin.decisions] == [0.7, 0.5, 0.0]
    assert [d["forced"] for d in plugin.decisions] == [True] * 3
    assert [[a["width"] for a in d["attempts"]] for d in plugin.decisions] == [[1.0, 1.5], [1.5], [1.5]]


def test_a_rung_below_the_goal_is_not_chosen_and_the_network_goes_back() -> None:
    """Accuracies are dictated: the second of three rungs misses the goal; the third would reach it."""
    states: list[dict[str, Tensor]] = []

    class _Dictated(CPGPlugin):
        def accuracies(self, strategy: Any) -> tuple[float, float]:
            states.append(_weights(strategy.model))
            return 1.0, script[len(states) - 1]

        def close(self, strategy: Any) -> None:
            states.append(_weights(strategy.model))
            super().close(strategy)

    script = [0.9, 0.8, 0.6, 0.9, math.nan]
    first = stream().train_stream[:1]
    settings = SMALL | {"goal": 0.8, "ladder": (0.2, 0.4, 0.6)}
    plugin = _Dictated(**settings)
    watched(plugin, experiences=first)
    assert plugin.decisions[0]["ratio"] == 0.6  # the authors go on and take the largest
    assert _same(states[-1], states[3])
    states.clear()
    plugin = _Dictated(**settings | {"stop_at_goal": True})
    watched(plugin, experiences=first)
    assert [rung["ratio"] for rung in plugin.decisions[0]["rungs"]] == [0.2, 0.4]
    assert plugin.decisions[0]["ratio"] == 0.2
    assert _same(states[-1], states[1])
    states.clear()
    script = [0.9, 0.7, 0.7, 0.7, math.nan]
    plugin = _Dictated(**settings)
    watched(plugin, experiences=first)
    assert plugin.decisions[0]["ratio"] == 0.0  # no rung is good: the task keeps all
    assert _same(states[-1], states[0])


def test_the_floor_of_the_training_accuracy_ends_the_ladder_and_asks_for_growth() -> None:
    class _Dictated(CPGPlugin):
        def accuracies(self, strategy: Any) -> tuple[float, float]:
            return next(script), 1.0

    script = iter([0.5, 0.97, 0.96, 0.95, 0.99])
    plugin = _Dictated(**SMALL | {"goal": 0.8, "max_width": 1.5, "train_floor": 0.95, "ladder": (0.2, 0.4, 0.6)})
    watched(plugin, experiences=stream().train_stream[:1])
    decision = plugin.decisions[0]
    assert [attempt["width"] for attempt in decision["attempts"]] == [1.0, 1.5]
    assert [rung["ratio"] for rung in decision["rungs"]] == [0.2, 0.4]
    assert decision["ratio"] == 0.2


def test_a_restart_begins_where_the_task_began() -> None:
    """Old entries of the wider network are those from before the task; what is new is free before it is claimed."""
    begun: list[dict[str, Tensor]] = []

    class _Spied(CPGPlugin):
        def _begin_training(self, strategy: Any) -> None:
            super()._begin_training(strategy)
            begun.append(_weights(strategy.model))

    plugin = _Spied(**SMALL | {"goal": {0: 0.0, 1: 2.0}, "max_width": 1.5})
    watched(plugin, experiences=stream().train_stream[:2])
    before, after = begun[1], begun[2]
    for name in ("features.0.weight", "features.4.weight", "features.5.running_mean", "heads.heads.1.weight"):
        corner = after[name][tuple(slice(0, n) for n in before[name].shape)]
        assert corner.shape != after[name].shape
        assert torch.equal(corner, before[name])
    owner = after["scheme.owners.4/weight"]
    assert bool((owner[:, 14:] == 2).all())
    assert bool((owner[12:] == 2).all())
    assert bool((after["features.4.weight"][12:] != 0).all())
    assert torch.equal(after["heads.heads.0.weight"], before["heads.heads.0.weight"])


def test_growth_multiplies_the_parameters() -> None:
    """VGG16 for CIFAR: the published widths, and 1.5 and 2 times the weights of hidden layers within 0.2 %."""
    assert grown_widths([64, 128, 256, 512, 4096], 1.5) == [78, 156, 313, 627, 5016]
    layers: list[nn.Module] = []
    channels = 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        layers += [nn.MaxPool2d(2)] if width == 0 else [
            nn.Conv2d(channels, width, 3, padding=1, device="meta"), nn.BatchNorm2d(width, device="meta"), nn.ReLU()
        ]  # fmt: skip
        channels = width or channels
    hidden = [nn.Flatten(), nn.Linear(512, 4096, device="meta"), nn.ReLU(), nn.Linear(4096, 4096, device="meta")]
    network = expandable(nn.Sequential(*layers, *hidden, nn.ReLU(), nn.Linear(4096, 5)))
    network.heads.add(0, [0, 1])
    base = [stage.units for stage in network.stages]
    small_network = sum(w.numel() for w in weights_of(network.features).values())
    for multiplier in (1.5, 2.0):
        scheme = MaskedScheme.of(weights_of(network.features))
        grow(network, scheme, grown_widths(base, multiplier), 0, torch.Generator())
        ratio = sum(w.numel() for w in weights_of(network.features).values()) / small_network
        assert ratio == pytest.approx(multiplier, rel=2e-3)


def test_a_single_tasks_accuracy_is_that_of_training_it_alone() -> None:
    """Against a loop of its own; nothing of the strategy or the random state moves."""
    experience = stream(samples=40).train_stream[1]
    model = deep()
    initial = fresh(model)
    with torch.no_grad():
        model.features[0].weight.zero_()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)  # puts `initial_lr` into the group
    strategy = QuietNaive(
        model=model, optimizer=optimizer, criterion=nn.CrossEntropyLoss(), train_mb_size=8, train_epochs=3,
        evaluator=None,
    )  # fmt: skip
    strategy.experience, strategy.adapted_dataset = experience, experience.dataset.train()
    held = tiny_stream("task", samples=40, shape=(8,)).test_stream[1].dataset
    before, state = _weights(model), torch.get_rng_state()
    found = single_task_accuracy(strategy, initial, 1, held, torch.Generator().manual_seed(5))
    assert _same(before, _weights(model))
    assert torch.equal(state, torch.get_rng_state())

    alone = deep()
    alone.heads.add(1, [2, 3])
    alone.train()
    steps = torch.optim.SGD(alone.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    generator = torch.Generator().manual_seed(5)
    x, y = (torch.stack([torch.as_tensor(s[i]) for s in experience.dataset]) for i in (0, 1))
    torch.set_rng_state(state)  # for dropout
    for _ in range(3):
        torch.empty((), dtype=torch.int64).random_(generator=generator)  # the loader's seed for its workers
        for rows in torch.randperm(40, generator=generator).split(8):
            steps.zero_grad()
            nn.functional.cross_entropy(alone(x[rows], 1), y[rows]).backward()
            steps.step()
    alone.eval()
    x, y = (torch.stack([torch.as_tensor(s[i]) for s in held]) for i in (0, 1))
    expected = float((alone(x, 1).argmax(1) == y).float().mean())
    assert found == pytest.approx(expected)
    assert 0.5 < found <= 1.0


def test_goals_by_task_and_by_single_task_networks() -> None:
    plugin = small(goal="single_task", tolerance=0.05)
    watched(plugin)
    assert all(0.0 < decision["goal"] <= 0.95 for decision in plugin.decisions)
    with pytest.raises(ValueError, match="goal has no number for the task 1; it has \\[0\\]"):
        watched(small(goal={0: 0.1}))


# ---- honest decisions ------------------------------------------------------------------------------------------------


def test_held_out_samples_are_never_trained_on() -> None:
    class _Spied(CPGPlugin):
        def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            trained.update(tuple(row) for row in strategy.mb_x.tolist())
            held.update(tuple(self._held[i][0].tolist()) for i in range(len(self._held)))
            super().before_forward(strategy)

    trained: set[tuple[float, ...]] = set()
    held: set[tuple[float, ...]] = set()
    watched(_Spied(**SMALL | {"goal": "single_task", "max_width": 1.5}), experiences=stream().train_stream[:2])
    assert (len(trained), len(held)) == (2 * 26, 2 * 6)
    assert not trained & held


def test_the_third_stage_never_ends_below_the_compacted_task() -> None:
    """The authors compare with the network right after the masks were reset, and may keep a worse one."""
    held: list[float] = []

    class _Dictated(CPGPlugin):
        def held_accuracy(self, strategy: Any) -> float:
            if not self._retraining:
                return super().held_accuracy(strategy)
            held.append(script[len(held)])
            return held[-1]

        _retraining = False

        def _retrain(self, strategy: Any, held: float) -> float:
            before = _weights(strategy.model) | {f"m.{n}": m.detach().clone() for n, m in self._picks.masks.items()}
            self._retraining = True
            kept = super()._retrain(strategy, 0.9)
            self._retraining = False
            after = _weights(strategy.model) | {f"m.{n}": m.detach().clone() for n, m in self._picks.masks.items()}
            outcomes.append((kept, _same(before, after)))
            return kept

    outcomes: list[tuple[float, bool]] = []
    two = stream().train_stream[:2]
    script = [0.3, 0.6, 0.9]  # each better than the one before, none better than the compacted task
    plugin = _Dictated(**SMALL | {"retrain_epochs": 3.0})
    watched(plugin, experiences=two)
    assert outcomes == [(0.9, True)]
    assert plugin.decisions[1]["retrain"] == {"before": 0.9, "after": 0.9, "kept": False}
    outcomes.clear()
    held.clear()
    script = [0.3, 0.95, 0.92, 0.91, 0.99]  # two in a row that are not better end it
    plugin = _Dictated(**SMALL | {"retrain_epochs": 9.0, "patience": 2})
    watched(plugin, experiences=two)
    assert outcomes == [(0.95, False)]
    assert held == [0.3, 0.95, 0.92, 0.91]


def test_masks_of_own_and_free_weights_stay_where_they_began() -> None:
    class _Looking(CPGPlugin):
        def close(self, strategy: Any) -> None:
            if self._picks is not None:
                for name, mask in self._picks.masks.items():
                    owner = self.scheme.owners[name]
                    others = (owner == 0) | (owner >= self.now)
                    assert bool((mask.detach()[others] == INITIAL).all())
                    moved.append(bool((mask.detach()[~others] != INITIAL).any()))
            super().close(strategy)

    moved: list[bool] = []
    watched(_Looking(**SMALL | {"retrain_epochs": 0.0}))
    assert len(moved) == 6
    assert all(moved)


def test_decisions_are_saved_and_readable() -> None:
    plugin = small(goal="single_task", max_width=1.5)
    watched(plugin)
    state = plugin.state_dict()
    assert json.loads(json.dumps(plugin.decisions)) == state["decisions"]
    other = small(goal="single_task", max_width=1.5)
    other.load_state_dict(state)
    assert other.decisions == plugin.decisions
    assert other.width == plugin.width
    keys = {"task", "goal", "attempts", "rungs", "forced", "ratio", "held", "width", "picked"}
    assert keys <= set(plugin.decisions[0])
    assert set(plugin.decisions[1]["retrain"]) == {"before", "after", "kept"}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"goal": "best"}, ValueError, "goal must be a number, numbers by task or 'single_task', got 'best'"),
        ({"goal": -0.1}, ValueError, r"CPGPlugin: goal must be in \[0, inf\), got -0.1"),
        ({"goal": {0: -1.0}}, ValueError, r"goal\[0\] must be in"),
        ({"goal": None}, TypeError, "goal must be a number, got None"),
        ({"ladder": (0.5, 0.4)}, ValueError, r"ladder must be rising numbers in \(0, 1\), got \(0.5, 0.4\)"),
        ({"ladder": (0.5, 1.0)}, ValueError, "ladder must be rising"),
        ({"max_width": 0.5}, ValueError, r"max_width must be in \[1, inf\), got 0.5"),
        ({"grow_step": 0.0}, ValueError, "grow_step must be in"),
        ({"prune_epochs": -1.0}, ValueError, "prune_epochs must be in"),
        ({"patience": 0}, ValueError, "patience must be an integer >= 1"),
        ({"mask_every": 0}, ValueError, "mask_every must be an integer >= 1"),
        ({"train_floor": 1.1}, ValueError, "train_floor must be in"),
        ({"mask_lr": -1.0}, ValueError, "mask_lr must be in"),
        ({"lr_factor": 0.0}, ValueError, "lr_factor must be in"),
        ({"hold_out": 1.0}, ValueError, "hold_out must be below 1"),
        ({"tolerance": float("nan")}, ValueError, "tolerance must be in"),
        ({"tasks": 2.5}, TypeError, "tasks must be an integer, got 2.5"),
        ({"seed": -1}, ValueError, "seed must be an integer >= 0"),
    ],
)
def test_bad_hyper_parameters(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        CPGPlugin(**arguments)


def test_what_cannot_grow_is_said_at_once() -> None:
    one = stream().train_stream[:1]
    frozen = deep()
    frozen.features[4].weight.requires_grad_(False)
    with pytest.raises(ValueError, match="cannot grow the frozen layer '4'; set max_width to 1"):
        watched(small(max_width=1.5), lambda: frozen, experiences=one)
    model = deep()
    groups = [{"params": model.features.parameters()}, {"params": model.heads.parameters()}]
    runner = QuietNaive(
        model=model, optimizer=torch.optim.SGD(groups, lr=0.1), criterion=nn.CrossEntropyLoss(), evaluator=None,
        plugins=[small(max_width=1.5)],
    )  # fmt: skip
    with pytest.raises(ValueError, match="give it all parameters in one group"):
        runner.train(one[0], eval_streams=[])
