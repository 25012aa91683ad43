"""What the plugins with a rehearsal memory share: the memory, when it is written, and its state."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cl_ext.nn.memory import Policy, RehearsalMemory
from cl_ext.nn.parameters import trainable_parameters
from cl_ext.nn.sample_pass import trained_outputs
from cl_ext.plugins.base import MethodPlugin
from cl_ext.plugins.checks import check_choice, check_count

import torch
from torch import Tensor


def fields_of(mbatch: Sequence[Tensor]) -> dict[str, Tensor]:
    """Returns the parts of an Avalanche mini-batch by name: `x`, `y`, others as `part2`, `part3`, ..., last `t`.

    Args:
        mbatch: inputs (B, ...), labels (B,), further attributes of the samples, task labels (B,).
    """
    names = ["x", "y", *(f"part{index}" for index in range(2, len(mbatch) - 1)), "t"]
    return dict(zip(names, mbatch, strict=False))


def outputs_read(loss: Callable[[Tensor, Tensor], Tensor], phi: Tensor) -> Tensor | None:
    """Returns which of the K outputs a loss compares for a sample of each label, (K, K) bool; None where it is all.

    A loss over some classes only (those of a task, those seen so far) reads those. If it reads nothing but the label's
    own output (`NLLLoss` of log-probabilities), the network itself compares all outputs.

    Args:
        loss: from logits (B, K) and labels (B,) to a scalar.
        phi: logits of any batch, (B, K): their K, type and device.
    """
    outputs = phi.shape[1]
    labels = torch.arange(outputs, device=phi.device)
    read = trained_outputs(loss, phi.new_zeros(outputs, outputs), labels)
    read = read | read.sum(1, keepdim=True).eq(1)
    return None if bool(read.all()) else read


class OutputsRead:
    """Which outputs count where a sample's logits are compared with another network's.

    Those that the loss reads for its label, of those that the network has for the sample: one with a head a task gives
    -inf for classes of other tasks.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Looks at the loss anew at the next call, as it does by itself where the outputs have become more."""
        self._outputs = 0
        self._table: Tensor | None = None
        self._absent = False

    def __call__(self, loss: Callable[[Tensor, Tensor], Tensor], z: Tensor, y: Tensor) -> Tensor | None:
        """Returns (M, K) bool; None where it is all.

        Args:
            loss: see `outputs_read`.
            z: logits, (M, K).
            y: labels, (M,).
        """
        if z.shape[1] != self._outputs:
            self._outputs, self._table = z.shape[1], outputs_read(loss, z)
            self._absent = bool(z.detach().isneginf().any())
        read = None if self._table is None else self._table[y]
        if not self._absent:
            return read
        given = ~z.detach().isneginf()
        return given if read is None else read & given


class RehearsalPlugin(MethodPlugin):
    """Keeps a memory of the stream, and offers it every batch after the step that it was trained on in.

    What is kept is the batch as it was when this plugin's `before_forward` came: with the augmentation of the data's
    transforms, which is not applied anew when a sample is replayed, and with what plugins before it in the list did.
    Every presentation of a sample counts, so a second epoch offers it a second time.

    Attributes:
        mem_batch_size: samples drawn from the memory at a time.
    """

    def __init__(self, mem_size: int, mem_batch_size: int, policy: Policy, seed: int) -> None:
        """Sets the hyper-parameters; see the methods' own."""
        super().__init__()
        owner = type(self).__name__
        size, seed = check_count(owner, "mem_size", mem_size, low=0), check_count(owner, "seed", seed, low=0)
        self.mem_batch_size = check_count(owner, "mem_batch_size", mem_batch_size)
        self._memory = RehearsalMemory(size, check_choice(owner, "policy", policy, Policy), seed)
        self._stream: list[Tensor] = []

    @property
    def mem_size(self) -> int:
        """Places in the memory."""
        return self._memory.mem_size

    @property
    def memory(self) -> dict[str, Tensor]:
        """What is held by name, (N, ...) each: inputs `x`, labels `y`, task labels `t`, ...; views, not copies."""
        return self._memory.fields

    def extra_bytes(self) -> int:
        """Returns the memory held beside the network, in bytes."""
        return self._memory.bytes()

    def state_dict(self) -> dict[str, Any]:
        """Returns the whole state between two experiences as tensors and JSON values; the tensors are copies."""
        return super().state_dict() | {"memory": self._memory.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave; hyper-parameters are the constructor's, not part of it.

        Raises:
            ValueError: if it is the state of another plugin, or of a memory of another size.
        """
        super().load_state_dict(state)
        self._memory.load_state_dict(state["memory"])

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Brings the memory to the strategy's device."""
        trainable_parameters(strategy.model)
        self._memory.to(strategy.device)

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Keeps the stream's part of the step's batch."""
        self._stream = list(strategy.mbatch)

    def offer(self, **others: Tensor) -> None:
        """Offers the stream's part to the memory, with further fields (B, ...)."""
        self._memory.add(**fields_of(self._stream), **others)
        self._stream = []

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Counts the experience."""
        self._stream = []
        self.experiences += 1
