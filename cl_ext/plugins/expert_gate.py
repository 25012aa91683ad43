"""Expert Gate (Aljundi, Chakravarty & Tuytelaars, CVPR 2017): an expert a task, found at test time by auto-encoders.

Symbols: `Er_a` the mean reconstruction error of task a's auto-encoder on held-out samples of the new task k,
`Rel(k, a) = 1 - (Er_a - Er_k) / Er_k`. `docs/methods/expert_gate.md` has the deviations.
"""

from collections.abc import Mapping
from typing import Any

from cl_ext.models.expert_network import ExpertNetwork
from cl_ext.nn.distillation import Layout, Teacher, grouped_distillation, layout
from cl_ext.nn.holdout import held_out
from cl_ext.nn.passes import labelled_batches, preserved_random_state
from cl_ext.nn.phases import train_all
from cl_ext.nn.task_gate import GateCode, reconstruction_errors, relatedness, train_gate_code
from cl_ext.plugins.base import MethodPlugin
from cl_ext.plugins.checks import check_count, check_number
from cl_ext.streams.loading import IndexedLoader

import torch
from torch import Tensor

_PASS_BATCH = 1024


class ExpertGatePlugin(MethodPlugin):
    """Expert Gate.

    Before an experience an auto-encoder is trained on its samples. The new expert begins as a copy of the most related
    one; it is fine-tuned, or, where it is related enough, trained by learning without forgetting, with that expert as
    the teacher of its own classes:

        L + lwf_lambda KD,    KD = -(1/B) sum_n sum_{c of a} softmax(z_a / T)_nc log softmax(z / T)_nc

    Earlier experts are frozen. Needs a network that `cl_ext.models.experts` has made, and no task labels.

    Attributes:
        experiences: how many experiences have been trained on to their end.
        history: for each experience but the first, the expert that it began with, how related that is, and whether it
            teaches.
    """

    name = "ExpertGate"

    def __init__(
        self,
        threshold: float = 0.85,
        lwf_lambda: float = 1.0,
        temperature: float = 2.0,
        code_size: int = 100,
        gate_epochs: int = 100,
        gate_lr: float = 0.01,
        gate_batch_size: int = 12,
        gate_weight_decay: float = 5e-4,
        validation: float = 0.1,
        seed: int = 0,
    ) -> None:
        """Sets the hyper-parameters.

        Args:
            threshold: relatedness above which the most related expert teaches, at most 1; at 1 it teaches only where
                its auto-encoder is the better one even on the new task's samples. To never teach: `lwf_lambda=0`.
            lwf_lambda: strength of the distillation, >= 0.
            temperature: T of the distillation, > 0.
            code_size: C, units of an auto-encoder's code, >= 1, and fewer than the gate's features: one that can
                reconstruct everything tells no tasks apart.
            gate_epochs: passes of an auto-encoder over its experience, >= 1.
            gate_lr: AdaGrad's learning rate, > 0.
            gate_batch_size: samples of an auto-encoder's step, >= 1.
            gate_weight_decay: of an auto-encoder's weights, not its biases, >= 0.
            validation: share of an experience on which no auto-encoder is trained and relatedness is measured, in
                (0, 0.9]. The experts are trained on all samples.
            seed: of auto-encoders and held-out samples, >= 0; each experience has its own stream of random numbers.

        Raises:
            TypeError: if a number is not one.
            ValueError: if an argument is out of its range.
        """
        super().__init__()
        owner = type(self).__name__
        self.threshold = check_number(owner, "threshold", threshold, -1e9, 1.0)
        self.lwf_lambda = check_number(owner, "lwf_lambda", lwf_lambda, 0.0)
        self.temperature = check_number(owner, "temperature", temperature, 0.0, above=True)
        self.code_size = check_count(owner, "code_size", code_size)
        self.gate_epochs = check_count(owner, "gate_epochs", gate_epochs)
        self.gate_lr = check_number(owner, "gate_lr", gate_lr, 0.0, above=True)
        self.gate_batch_size = check_count(owner, "gate_batch_size", gate_batch_size)
        self.gate_weight_decay = check_number(owner, "gate_weight_decay", gate_weight_decay, 0.0)
        self.validation = check_number(owner, "validation", validation, 0.0, 0.9, above=True)
        self.seed = check_count(owner, "seed", seed, low=0)
        self.history: list[dict[str, Any]] = []
        self._bytes = 0
        self._teacher: Teacher | None = None
        self._layout: Layout = []
        self._total: Tensor | float = 0.0
        self._batches = 0

    @property
    def teacher(self) -> Teacher | None:
        """A copy of the expert that teaches in the present experience; None where nobody does."""
        return self._teacher

    def extra_bytes(self) -> int:
        """Returns the bytes of the auto-encoders, and of a teacher while it teaches; the experts are the network."""
        return self._bytes + (0 if self._teacher is None else self._teacher.bytes())

    def state_dict(self) -> dict[str, Any]:
        """Returns the state between two experiences; the network's own state has experts and auto-encoders."""
        return super().state_dict() | {"bytes": self._bytes, "history": [dict(choice) for choice in self.history]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave; hyper-parameters are the constructor's, not part of it."""
        super().load_state_dict(state)
        self._bytes = int(state["bytes"])
        self.history = [dict(choice) for choice in state["history"]]
        self._teacher = None

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Trains the auto-encoder, chooses the expert to begin with, and how the new one is trained.

        Raises:
            TypeError: if the network is not one of experts.
            ValueError: if there is nothing to train; if labels are to choose experts and do not tell them apart; if
                codes are as large as what they code; or if relatedness is undefined.
        """
        network = self._network(strategy)
        labels = [int(label) for label in getattr(strategy.experience, "task_labels", [0])]
        if network.by_label and (len(labels) != 1 or labels[0] in network.tasks):
            raise ValueError(
                f"{type(self).__name__}: task labels are to choose the experts, so each experience needs one of its "
                f"own; this one has {labels}, earlier ones {network.tasks}"
            )
        with preserved_random_state(), torch.no_grad():
            raw, y = self._samples(strategy, network)
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.experiences)
            code, errors, held = self._code(network, raw, y, generator)
        source, teaches = self._choose(strategy, errors)
        if teaches:
            self._teacher = Teacher(network.experts[source])
            self._layout = layout([network.classes(source).tolist()], strategy.device)
        earlier = list(network.experts) if network.begun else []
        network.begin(source, code, set(y.tolist()), labels[0])
        for parameter in (parameter for expert in earlier for parameter in expert.parameters()):
            parameter.requires_grad_(False)
            parameter.grad = None
        train_all(strategy)
        held_share = float((network.gate(held) == network.begun - 1).float().mean())
        self.publish(strategy, "GateAccuracy", held_share)
        self.publish(strategy, "ReconstructionError", float(errors[-1]))
        self._bytes = sum(tensor.nbytes for tensor in network.gate.buffers())

    def _network(self, strategy: Any) -> ExpertNetwork:
        model = strategy.model
        if not isinstance(model, ExpertNetwork):
            raise TypeError(
                f"{type(self).__name__} needs a network of experts, which cl_ext.models.experts(model) makes "
                f"of yours; it was given a {type(model).__name__}"
            )
        if not any(parameter.requires_grad for parameter in model.experts[-1].parameters()):
            raise ValueError(f"{type(self).__name__}: the model has no trainable parameters")
        return model

    def _samples(self, strategy: Any, network: ExpertNetwork) -> tuple[Tensor, Tensor]:
        """The gate's raw features (N, D) of the experience's own samples, and their labels (N,)."""
        parts = [
            (network.raw_features(x), y)
            for x, y, _ in labelled_batches(strategy.experience.dataset, _PASS_BATCH, strategy.device)
        ]
        return torch.cat([raw for raw, _ in parts]), torch.cat([y for _, y in parts])

    def _code(
        self, network: ExpertNetwork, raw: Tensor, y: Tensor, generator: torch.Generator
    ) -> tuple[GateCode, Tensor, Tensor]:
        """The new auto-encoder, the mean errors of all on held-out samples (E + 1,), and these samples' features."""
        gate, features = network.gate, raw.shape[1]
        if self.code_size >= features:
            raise ValueError(
                f"{type(self).__name__}: code_size is {self.code_size} and the gate has {features} features of a "
                "sample; auto-encoders that are to tell tasks apart need fewer units than features"
            )
        aside = held_out(y.cpu(), self.validation, generator).to(raw.device)
        held, kept = raw, raw
        if len(aside):  # one sample alone is both
            rest = torch.ones(len(raw), dtype=torch.bool, device=raw.device)
            rest[aside] = False
            held, kept = raw[aside], raw[rest]
        if gate.experts == 0:
            gate.fit_scale(kept)
        code = train_gate_code(
            gate.features(kept), self.code_size, gate.form, self.gate_lr, self.gate_weight_decay, self.gate_epochs,
            self.gate_batch_size, generator,
        )  # fmt: skip
        own = reconstruction_errors(gate.features(held), code, gate.form).mean()
        others = gate.errors(held).mean(0) if gate.experts else own.new_empty(0)
        return code, torch.cat([others, own[None]]), held

    def _choose(self, strategy: Any, errors: Tensor) -> tuple[int, bool]:
        """The expert to begin with, and whether it teaches."""
        if len(errors) == 1:
            return 0, False
        related = relatedness(errors[:-1], errors[-1])
        if bool(related.isnan().any()):
            listed = ", ".join(f"{float(error):g}" for error in errors)
            raise ValueError(
                f"{type(self).__name__}: relatedness is undefined for the mean reconstruction errors {listed} of this "
                "experience's held-out samples (its own auto-encoder's is the last); they must be finite, and the last "
                "not 0 together with another"
            )
        source = int(related.argmax())
        value = float(related[source])
        teaches = value > self.threshold and self.lwf_lambda > 0.0 and len(strategy.model.classes(source)) > 1
        self.history.append({"expert": source, "relatedness": value, "teaches": teaches})
        self.publish(strategy, "Relatedness", value)
        self.publish(strategy, "Expert", float(source))
        self.publish(strategy, "Teaches", float(teaches))
        return source, teaches

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Starts the epoch's mean."""
        self._total, self._batches = 0.0, 0

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Adds the distillation to the loss, where an expert teaches."""
        if self._teacher is None:
            return
        loader = strategy.dataloader
        if isinstance(loader, IndexedLoader):
            self._teacher.remember(loader.plan, strategy.device)
            z_t = self._teacher.recall(loader.positions).logits  # type: ignore[arg-type]
        else:
            z_t = self._teacher(strategy.mb_x, None).logits
        term = self.lwf_lambda * grouped_distillation(strategy.mb_output, z_t, self._layout, self.temperature)
        strategy.loss = strategy.loss + term
        self._total = self._total + term.detach()
        self._batches += 1

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Publishes the epoch's mean of what was added to the loss, strength included."""
        self.publish(strategy, "Distillation", float(self._total) / max(1, self._batches))

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Lets the teacher go."""
        self._teacher = None
        self.experiences += 1
