"""Mends of the methods that keep samples: A-GEM, MIR, GSS, BiC, ER-ACE, iCaRL."""

import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)

from avalanche.benchmarks.utils import _make_taskaware_tensor_classification_dataset
from avalanche.benchmarks.utils.data_loader import ReplayDataLoader
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import AGEMPlugin, BiCPlugin, GSS_greedyPlugin, MIRPlugin, bic
from avalanche.training.utils import cycle
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

Criterion = Callable[[Tensor, Tensor], Tensor]


class MendedAGEM(AGEMPlugin):
    """A-GEM that takes at least one sample of each experience.

    Stock, a part of the batch is `sample_size // experiences`, which is 0, and an error, from the experience on at
    which there are more of them than samples.
    """

    sample_size: int

    def update_memory(self, dataset: Any, num_workers: int = 0, **kwargs: Any) -> None:
        self.sample_size = max(self.sample_size, len(self.buffers) + 1)
        super().update_memory(dataset, num_workers=num_workers, **kwargs)


class MendedMIR(MIRPlugin):
    """MIR that draws its candidates from the whole memory.

    Stock, the classes of the last mini-batch are left out until the next experience ends: on class-incremental
    streams the preceding experience is never replayed, on domain-incremental ones nothing is.
    """

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        super().after_training_exp(strategy, **kwargs)
        memory = self.storage_policy.buffer
        if len(memory) > self.batch_size_mem:
            self.replay_loader = cycle(DataLoader(memory, batch_size=self.subsample, shuffle=True))


class MendedGSS(GSS_greedyPlugin):
    """GSS that steps along the gradient of its loss and replays only what it stored.

    Stock, the gradients by which samples are scored stay in `p.grad` and are added to the step's own (a full memory
    doubles the step); slots that are still empty are replayed as black images of class 0; and a memory with fewer
    samples than the step is an error.

    Args:
        mem_size: Samples in all.
        mem_strength: Mini-batches of the memory that a sample is compared with.
        input_size: Shape of a sample.
        mem_batch_size: Samples of the memory in a step.
    """

    def __init__(self, mem_size: int, mem_strength: int, input_size: Sequence[int], mem_batch_size: int) -> None:
        super().__init__(mem_size, mem_strength, list(input_size))
        self.mem_batch_size = mem_batch_size

    def before_training_exp(self, strategy: Any, num_workers: int = 0, shuffle: bool = True, **kwargs: Any) -> None:
        filled = self.ext_mem_list_current_index
        if not filled:
            return
        memory = _make_taskaware_tensor_classification_dataset(
            self.ext_mem_list_x[:filled].cpu(), self.ext_mem_list_y[:filled].cpu()
        )
        strategy.dataloader = ReplayDataLoader(
            strategy.adapted_dataset, memory, oversample_small_tasks=True, batch_size=strategy.train_mb_size,
            batch_size_mem=self.mem_batch_size, num_workers=num_workers, shuffle=shuffle,
        )  # fmt: skip

    def get_rand_mem_grads(self, strategy: Any, grad_dims: list[int], gss_batch_size: int) -> Tensor:
        filled = min(gss_batch_size, self.ext_mem_list_current_index)
        gradients: Tensor = super().get_rand_mem_grads(strategy, grad_dims, filled)
        return gradients

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        super().after_forward(strategy, **kwargs)
        strategy.optimizer.zero_grad()


class MendedBiC(BiCPlugin):
    """BiC that runs, distils over classes and gives the experience's data back.

    Stock, it asks for `MultiStepLR(verbose=...)`, which PyTorch has dropped; its soft targets are normalised over the
    samples of the batch, at a fixed temperature, where paper and authors' code normalise over the classes; and the
    experience is left without the samples that were set aside.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        accept_verbose()
        self._whole: Any = None

    def before_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        self._whole = strategy.experience.dataset
        counts = Counter(int(label) for label in self._whole.targets)
        aside = max(self.get_group_lengths(len(self.seen_classes | counts.keys())))
        if min(counts.values()) <= aside:
            raise ValueError(
                f"bic sets {aside} samples of each class aside to correct its bias, and an experience has a class of "
                f"{min(counts.values())}: use a smaller mem_size"
            )
        super().before_train_dataset_adaptation(strategy, **kwargs)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        super().after_training_exp(strategy, **kwargs)
        strategy.experience.dataset = self._whole
        self._whole = None

    def cross_entropy(self, new_outputs: Tensor, old_outputs: Tensor) -> Tensor:
        targets = functional.softmax(old_outputs / self.T, dim=1)
        return functional.cross_entropy(new_outputs / self.T, targets)


_MULTI_STEP_LR = bic.MultiStepLR


def _multi_step_lr(*args: Any, verbose: bool = False, **kwargs: Any) -> Any:
    return _MULTI_STEP_LR(*args, **kwargs)


def accept_verbose() -> None:
    """Lets Avalanche's BiC name `verbose`, where this PyTorch's `MultiStepLR` no longer has it."""
    if "verbose" not in inspect.signature(_MULTI_STEP_LR).parameters:
        bic.MultiStepLR = _multi_step_lr


class MendedACE:
    """ER-ACE's loss, which stays finite and leaves out what the study's loss leaves out.

    Incoming samples compete among the classes of their batch, samples of the memory among those of the study's loss.
    Stock, the logarithm of a softmax is NaN at a gap of about 100 between two logits, and samples of the memory
    compete among all K classes also in the task-incremental scenario.

    Args:
        criterion: The study's loss.
    """

    def __init__(self, criterion: Criterion) -> None:
        self._criterion = criterion

    def __call__(self, out_in: Tensor, target_in: Tensor, out_buffer: Tensor, target_buffer: Tensor) -> Tensor:
        classes, position = target_in.unique(return_inverse=True)
        incoming = functional.cross_entropy(out_in[:, classes], position)
        return (self._criterion(out_buffer, target_buffer) + incoming) / 2


class RestingTeacher(SupervisedPlugin):
    """Gives iCaRL a teacher in evaluation mode and of the network's size.

    Stock, the teacher's batch norm goes on learning on the new classes, and a head that has grown does not fit into the
    first teacher, which is kept.
    """

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        teacher: nn.Module | None = strategy._criterion.old_model
        if teacher is not None:
            teacher.eval()
            # this flag alone chooses the classifier: the trained one, not the nearest class mean
            teacher.training = True

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        strategy._criterion.old_model = None  # the loss, which comes later, copies the network afresh


def name_class_order(benchmark: Any, classes_per_experience: Sequence[Sequence[int]]) -> None:
    """Gives a benchmark the two attributes that iCaRL asks for, where it lacks them.

    Args:
        benchmark: An Avalanche benchmark.
        classes_per_experience: The class ids of each experience.
    """
    if not hasattr(benchmark, "n_classes_per_exp"):
        benchmark.n_classes_per_exp = [len(classes) for classes in classes_per_experience]
    if not hasattr(benchmark, "classes_order"):
        benchmark.classes_order = [c for classes in classes_per_experience for c in classes]


def exemplar_logits(strategy: Any, x: Tensor, classes: int) -> Tensor:
    """iCaRL's prediction: minus the distance to the mean of each class's exemplars.

    Stock, a class without exemplars has a mean of 0, which is nearer than a mean more than 60 degrees away, so that
    classes are predicted before they are seen; here it is -inf.

    Args:
        strategy: An Avalanche `ICaRL`.
        x: Images `(B, ...)`.
        classes: K.

    Returns:
        Logits `(B, K)`.
    """
    logits = x.new_full((len(x), classes), float("-inf"))
    means = strategy.model.eval_classifier.class_means
    if means is None:
        return logits
    known = means.ne(0).any(1).nonzero().flatten().to(x.device)
    near = strategy.model.eval_classifier(strategy.model.feature_extractor(x))
    logits[:, known] = near[:, known]
    return logits
