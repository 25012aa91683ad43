"""Deep generative replay (Shin, Lee, Kim, Kim, NeurIPS 2017): samples of a generator stand for the past.

Symbols as in the paper: `S` the solver, the strategy's network, `G` the generator, `i` = 1, 2, ... the experience, `r`
the share of the new experience; `x'` a replayed sample. `B` real samples in a step, `M` replayed ones, `K` outputs, `T`
the temperature. `docs/methods/generative_replay.md` has the deviations.
"""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal

from cl_ext.models.vae import VAE
from cl_ext.nn.answers import ONE_HEAD, Answers, OldNetwork, TrainedClasses, label_entropy, soft_loss
from cl_ext.nn.distillation import Teacher, is_multi_head, snapshot
from cl_ext.nn.divergence import DivergedError
from cl_ext.nn.generators import Generator, train_on_union, union_steps
from cl_ext.nn.parameters import trainable_parameters
from cl_ext.nn.passes import batches, preserved_random_state
from cl_ext.plugins.base import MethodPlugin
from cl_ext.plugins.checks import check_choice, check_count, check_number
from cl_ext.plugins.rehearsal import outputs_read
from cl_ext.streams.seeding import random_state

import torch
from torch import Tensor, nn

Labels = Literal["hard", "soft"]


def share_of_new(r: float | str, experience: int) -> Fraction:
    """Returns the share r of the new experience's samples: 1 in the first, then 1/i or the given number."""
    if experience == 1:
        return Fraction(1)
    return Fraction(1, experience) if isinstance(r, str) else Fraction(repr(r))


class GenerativeReplayPlugin(MethodPlugin):
    """Deep generative replay with a VAE, or with a generator of the user's.

    Before the solver's first step of experience i, `G_i`, which starts as `G_{i-1}`, is trained on the union of the
    experience's samples, a share r of it, and samples of `G_{i-1}`. Each step of the solver then takes

        L = r CE(S(x), y) + (1 - r) L'(S(x'), S_{i-1}(x')),    x' ~ G_{i-1}

    with `L'` the strategy's criterion at the old solver's answers ("hard"), or the distillation of `soft_loss`
    ("soft"). The old generator, not the new one, is the paper's: the new one makes samples of the new classes too, of
    which the old solver knows nothing. In the first experience r is 1.

    Real and replayed samples are one forward pass, so that batch norm sees what it is evaluated on: old and new
    together. Behind that pass `strategy.mbatch` and `strategy.mb_output` are the real part again. `strategy.loss` is
    weighted as it is when this plugin comes: terms of plugins before it in the list are weighted with r, too.

    Where tasks have outputs of their own that the loss never compares (task-incremental), each replayed sample is
    given one past task, drawn evenly, and that task's answer of the old solver.

    Attributes:
        generator: `G_i`; None before the first experience, unless one was given.
        experiences: how many experiences have been trained on to their end.
    """

    name = "GenerativeReplay"

    def __init__(
        self,
        r: float | Literal["1/i"] = "1/i",
        generator: nn.Module | None = None,
        labels: Labels = "hard",
        temperature: float = 2.0,
        replay_batch_size: int | None = None,
        generator_epochs: int = 10,
        generator_iterations: int | None = None,
        generator_batch_size: int | None = None,
        generator_lr: float = 1e-3,
        latent: int = 100,
        hidden: Sequence[int] = (400, 400),
        seed: int = 0,
    ) -> None:
        """Sets the hyper-parameters.

        Args:
            r: share of the new experience in (0, 1], in the generator's union and in the solver's loss; "1/i" counts
                every experience alike. At 1 there is no replay, no generator, and training as without the plugin.
            generator: a module with `sample(n, generator)` and `loss(x, generator)` (`cl_ext.nn.generators`); None for
                a VAE for the first experience's samples: Bernoulli where they lie in [0, 1], else Gaussian.
            labels: "hard", the paper's, or "soft".
            temperature: T > 0, of soft labels.
            replay_batch_size: M >= 1; None for the strategy's `train_mb_size`.
            generator_epochs: passes over the union, >= 1, in each experience.
            generator_iterations: steps in each experience instead, >= 1; None goes by epochs.
            generator_batch_size: samples in a step of the generator, real and replayed, >= 1; None for `train_mb_size`
                and M together, which is what a step of the solver sees.
            generator_lr: Adam's, > 0.
            latent: units of the VAE's code, >= 1.
            hidden: units of the layers of its encoder; its decoder is the mirror image.
            seed: of the plugin's own generators, >= 0; each experience has its own streams of random numbers.

        Raises:
            TypeError: if a number is not one, or the generator lacks a method.
            ValueError: if an argument is out of its range.
        """
        super().__init__()
        owner = type(self).__name__
        self.r = r if r == "1/i" else check_number(owner, "r", r, 0.0, 1.0, above=True)
        if generator is not None and not (isinstance(generator, nn.Module) and isinstance(generator, Generator)):
            raise TypeError(f"{owner}: generator must be a module with sample and loss, got {type(generator).__name__}")
        self.labels: Labels = check_choice(owner, "labels", labels, Labels)
        self.temperature = check_number(owner, "temperature", temperature, 0.0, above=True)
        self.replay_batch_size = _count_or_none(owner, "replay_batch_size", replay_batch_size)
        self.generator_iterations = _count_or_none(owner, "generator_iterations", generator_iterations)
        self.generator_batch_size = _count_or_none(owner, "generator_batch_size", generator_batch_size)
        self.generator_epochs = check_count(owner, "generator_epochs", generator_epochs)
        self.generator_lr = check_number(owner, "generator_lr", generator_lr, 0.0, above=True)
        self.latent = check_count(owner, "latent", latent)
        self.hidden = tuple(check_count(owner, "hidden", units) for units in hidden)
        self.seed = check_count(owner, "seed", seed, low=0)
        self.generator: nn.Module | None = generator
        self._given = generator is not None
        self._trained = TrainedClasses()
        self._multi_head = False
        self._outputs = 0
        self._share = Fraction(1)
        self._old_generator: Any = None
        self._old_solver: OldNetwork | None = None
        self._draws = torch.Generator()
        self._read: Tensor | None = None
        self._real: list[Tensor] = []
        self._answers: Answers | None = None
        self._z: Tensor | None = None
        self._total: Tensor | float = 0.0
        self._counts: Any = None
        self._steps = 0

    def extra_bytes(self) -> int:
        """Returns the memory held beside the network, in bytes: both generators and the old solver."""
        modules = [module for module in (self.generator, self._old_generator) if module is not None]
        held = sum(t.nbytes for module in modules for t in (*module.parameters(), *module.buffers()))
        return held + (0 if self._old_solver is None else self._old_solver.teacher.bytes())

    def state_dict(self) -> dict[str, Any]:
        """Returns the state between two experiences; the old solver is no part of it, as it is the network itself."""
        state = super().state_dict() | {"trained": self._trained.state(), "generator": None, "vae": None}
        if self.generator is not None:
            state["generator"] = {name: value.clone() for name, value in self.generator.state_dict().items()}
        if not self._given and isinstance(self.generator, VAE):
            state["vae"] = {"shape": list(self.generator.shape), "likelihood": self.generator.likelihood}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave; hyper-parameters are the constructor's, not part of it.

        Raises:
            ValueError: if it is the state of another plugin, or of one with a generator of another kind.
        """
        super().load_state_dict(state)
        if self._given != (state["generator"] is not None and state["vae"] is None):
            raise ValueError(f"{type(self).__name__}: the state is of a plugin with another kind of generator")
        self._trained = TrainedClasses.restored(state["trained"])
        self._old_generator = self._old_solver = None
        if not self._given:
            vae, draws = state["vae"], torch.Generator()  # the global random state stays as it is
            sizes = (self.latent, self.hidden)
            self.generator = None if vae is None else VAE(vae["shape"], *sizes, vae["likelihood"], draws)
        if self.generator is not None:
            self.generator.load_state_dict(state["generator"])

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Copies solver and generator, and trains the generator on the union.

        Raises:
            DivergedError: if the generator's loss is not finite.
        """
        trainable_parameters(strategy.model)
        self._old_generator = self._old_solver = self._read = None  # the old ones go before the new ones come
        if self.r == 1.0:
            return
        self._share = share_of_new(self.r, self.experiences + 1)
        self._multi_head = is_multi_head(strategy.model)
        self._outputs = 0
        self._draws = self._stream("replay")
        if self.experiences and self.generator is not None:
            self._old_generator = snapshot(self.generator.to(strategy.device))
            self._old_solver = OldNetwork(Teacher(strategy.model), self._trained.groups(), strategy.device)
        with preserved_random_state():
            self._train_generator(strategy)

    def _stream(self, purpose: str) -> torch.Generator:
        """Returns the experience's generator for one purpose, on the CPU."""
        key = random_state(self.seed, f"generative replay, {purpose}", self.experiences)
        return torch.Generator().manual_seed(int(key.randint(2**31)))

    def _replay_size(self, strategy: Any) -> int:
        return self.replay_batch_size or int(strategy.train_mb_size)

    def _train_generator(self, strategy: Any) -> None:
        """Trains `G_i` on the experience's samples, as evaluation sees them, and on samples of `G_{i-1}`."""
        draws = self._stream("generator")
        x = torch.cat([part for part, _ in batches(strategy.experience.dataset, 256, strategy.device)])
        in_range = bool(x.min() >= 0) and bool(x.max() <= 1)
        if self.generator is None:
            self.generator = VAE(x.shape[1:], self.latent, self.hidden, "bernoulli" if in_range else "gaussian", draws)
        elif isinstance(self.generator, VAE) and self.generator.likelihood == "bernoulli" and not in_range:
            raise ValueError(
                f"{type(self).__name__}: experience {self.experiences + 1} has values outside [0, 1], which the VAE of "
                "the ones before has not; give generator=VAE(shape, likelihood='gaussian')"
            )
        model = self.generator.to(strategy.device)
        x = x.to(next(model.parameters()))
        size = self.generator_batch_size or int(strategy.train_mb_size) + self._replay_size(strategy)
        steps = self.generator_iterations or union_steps(len(x), self._share, size, self.generator_epochs)
        old = self._old_generator
        replay = None if old is None else lambda n: old.sample(n, draws).to(x)
        loss = train_on_union(model, x, replay, self._share, size, steps, self.generator_lr, draws)
        self.publish(strategy, "GeneratorLoss", loss)

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Starts the epoch's means."""
        self._total, self._counts, self._steps = 0.0, None, 0

    @torch.no_grad()
    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Puts replayed samples, with the old solver's answers, behind the real ones."""
        if self._old_solver is None:
            return
        self._real = list(strategy.mbatch)
        x, y, *others = self._real
        replayed = self._old_generator.sample(self._replay_size(strategy), self._draws).to(x)
        self._answers = self._old_solver(replayed, self._draws)
        strategy.mbatch = [torch.cat([x, replayed]), torch.cat([y, self._answers.y.to(y)]), *others[:-1]]
        if others:
            strategy.mbatch.append(torch.cat([others[-1], self._answers.t.to(others[-1])]))

    def after_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Takes the replayed part out of batch and outputs again."""
        self._outputs = strategy.mb_output.shape[1]
        if self._answers is not None:
            start = len(self._real[0])
            strategy.mb_output, self._z = strategy.mb_output[:start], strategy.mb_output[start:]
            strategy.mbatch, self._real = self._real, []

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Weighs the real samples' loss and adds the replayed ones'."""
        if self._answers is None or self._z is None:
            return
        r = float(self._share)
        term = self._replay_loss(self._z, self._answers, strategy._criterion)
        strategy.loss = r * strategy.loss + (1.0 - r) * term
        counts = self._answers.y.bincount(minlength=self._answers.z_t.shape[1])
        self._counts = counts if self._counts is None else self._counts + counts
        self._total = self._total + term.detach()
        self._steps += 1
        self._answers = self._z = None

    def _replay_loss(self, z: Tensor, answers: Answers, criterion: Any) -> Tensor:
        """Returns `L'`, a scalar, of the solver's logits (M, K) for the replayed samples."""
        if self.labels == "hard":
            loss: Tensor = criterion(z, answers.y)
            return loss
        assert self._old_solver is not None
        if self._read is None or self._read.shape[1] != z.shape[1]:
            read = outputs_read(criterion, z)
            every = torch.ones(z.shape[1], z.shape[1], dtype=torch.bool, device=z.device)
            self._read = self._old_solver.read(every if read is None else read)
        return soft_loss(z, answers.z_t, answers.allowed, self._read[answers.group], self.temperature)

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Publishes r, the mean of `L'`, and how evenly the old solver named its classes.

        Raises:
            DivergedError: if the mean is not finite.
        """
        loss = float(self._total) / max(1, self._steps)
        if not math.isfinite(loss):
            raise DivergedError(
                f"{type(self).__name__}: the loss of the replayed samples is {loss} in experience "
                f"{self.experiences + 1}; a smaller learning rate may help"
            )
        self.publish(strategy, "Share", float(self._share))
        self.publish(strategy, "Replay", loss)
        if self._counts is not None:
            self.publish(strategy, "LabelEntropy", label_entropy(self._counts, len(self._trained.classes())))

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Records which classes the experience has trained."""
        self._answers, self._z, self._real = None, None, []
        if self.r != 1.0:
            self._trained.add(self._labels(strategy), strategy._criterion, self._outputs, strategy.device)
        self.experiences += 1

    def _labels(self, strategy: Any) -> dict[int, list[int]]:
        """Returns the sorted labels of the experience's own data, by the task label of the head that they train."""
        dataset = strategy.experience.dataset
        if not self._multi_head:
            return {ONE_HEAD: sorted(int(label) for label in dataset.targets.uniques)}
        pairs = {(int(t), int(y)) for t, y in zip(dataset.targets_task_labels, dataset.targets, strict=True)}
        return {task: sorted(y for t, y in pairs if t == task) for task in sorted({t for t, _ in pairs})}


def _count_or_none(owner: str, name: str, value: int | None) -> int | None:
    return None if value is None else check_count(owner, name, value)
