"""Experience replay with a reservoir (Riemer et al., ICLR 2019; Chaudhry et al. 2019, tiny episodic memories).

Symbols: `B` samples of the stream in a step, `M` of the memory. `docs/methods/er.md` has the deviations.
"""

from typing import Any

from cl_ext.nn.memory import Policy
from cl_ext.plugins.rehearsal import RehearsalPlugin, fields_of

from torch import Tensor


class ERPlugin(RehearsalPlugin):
    """Experience replay: each step trains on the stream's batch and a batch of the memory together.

        L = (1 / (B + M)) sum CE over the B samples of the stream and the M of the memory

    in the strategy's own forward pass and with its own criterion, so a sample of the memory counts like one of the
    stream; afterwards the memory is offered the stream's samples. There are no task boundaries in it: the present
    experience is replayed too.

    After the optimizer's step `strategy.mbatch` and `strategy.mb_output` are the stream's part alone, so Avalanche's
    training accuracy counts no replayed sample; `strategy.loss`, hence its training loss, is the mean over both.
    """

    name = "ER"

    def __init__(
        self, mem_size: int = 200, mem_batch_size: int = 10, policy: Policy = "reservoir", seed: int = 0
    ) -> None:
        """Sets the hyper-parameters; the defaults are the authors' code's for sequential MNIST.

        Args:
            mem_size: samples kept, >= 0; with 0 it equals training without the plugin.
            mem_batch_size: M >= 1; all of the memory while that has fewer.
            policy: which samples are kept: "reservoir", "ring" or "class_balanced"; see `RehearsalMemory`.
            seed: of the plugin's own generators, >= 0: what is kept, and what is drawn from it.

        Raises:
            TypeError: if a number is not one.
            ValueError: if an argument is out of its range.
        """
        super().__init__(mem_size, mem_batch_size, policy, seed)
        self._replayed = self._steps = 0
        self._joined: dict[str, Tensor] | None = None

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Starts the epoch's counts."""
        self._replayed = self._steps = 0

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Puts a batch of the memory behind the stream's."""
        super().before_forward(strategy, *args, **kwargs)
        self._steps += 1
        parts = fields_of(self._stream)
        self._joined = self._memory.sample_behind(parts, self.mem_batch_size)
        if self._joined is None:
            return
        self._replayed += len(self._joined["y"]) - len(parts["y"])
        strategy.mbatch = [self._joined[name] for name in parts]

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Takes the memory's part out of batch and outputs again, and offers the stream's to the memory."""
        strategy.mb_output = strategy.mb_output[: len(self._stream[0])]
        strategy.mbatch = self._stream
        self.offer()

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Publishes how many samples are held, and the epoch's mean of M."""
        self.publish(strategy, "Held", len(self._memory))
        self.publish(strategy, "Replayed", self._replayed / max(1, self._steps))
