"""How Avalanche's rehearsal methods are built: `mem_size` samples in all, `mem_batch_size` of them a step."""

from typing import Any

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)
from cl_ext._avalanche_methods.architecture import MendedVAE
from cl_ext._avalanche_methods.rehearsal import (
    MendedACE,
    MendedAGEM,
    MendedBiC,
    MendedGSS,
    MendedMIR,
    RestingTeacher,
    exemplar_logits,
    name_class_order,
)
from cl_ext._avalanche_quiet import QuietEvaluation
from cl_ext.methods.accounting import held_bytes
from cl_ext.methods.avalanche import need_full_head
from cl_ext.methods.context import Built, Context
from cl_ext.streams import BatchedLoading
from cl_ext.streams.tensors import as_tensors

import torch
from avalanche.models import VAE_loss
from avalanche.training.plugins import GDumbPlugin, GEMPlugin, GenerativeReplayPlugin, ReplayPlugin
from avalanche.training.plugins.generative_replay import TrainGeneratorAfterExpPlugin
from avalanche.training.supervised import DER, ER_ACE, ICaRL, Naive, VAETraining

RANGE_SAMPLES = 1000  # of the first experience; the range of its values is that of the generated ones


def replay(context: Context, mem_size: int, mem_batch_size: int) -> Built:
    """Experience replay: the step sees the batch and as many samples of the memory as `mem_batch_size` says."""
    plugin = ReplayPlugin(mem_size, batch_size=context.budget.batch_size, batch_size_mem=mem_batch_size)
    return context.built(Naive(**context.arguments(context.model(), plugin)), plugin)


def gem(context: Context, mem_size: int, memory_strength: float) -> Built:
    """GEM; the memory is split evenly over the experiences of the stream."""
    plugin = GEMPlugin(_each(context, "gem_avalanche", mem_size), memory_strength)
    return context.built(Naive(**context.arguments(context.model(), plugin)), plugin)


def agem(context: Context, mem_size: int, mem_batch_size: int) -> Built:
    """A-GEM; the memory is split evenly over the experiences of the stream."""
    plugin = MendedAGEM(_each(context, "agem_avalanche", mem_size), mem_batch_size)
    return context.built(Naive(**context.arguments(context.model(), plugin)), plugin)


def _each(context: Context, name: str, mem_size: int) -> int:
    if mem_size < context.experiences:
        raise ValueError(
            f"{name} splits mem_size over the {context.experiences} experiences of the stream; mem_size is {mem_size}"
        )
    return mem_size // context.experiences


def gdumb(context: Context, mem_size: int) -> Built:
    """GDumb: a fresh network on the memory alone, at each experience."""
    plugin = GDumbPlugin(mem_size)
    return context.built(Naive(**context.arguments(context.model(), plugin)), plugin)


def der(context: Context, mem_size: int, mem_batch_size: int, alpha: float) -> Built:
    """Dark experience replay."""
    return _der(context, "der_avalanche", mem_size=mem_size, batch_size_mem=mem_batch_size, alpha=alpha, beta=0.0)


def derpp(context: Context, mem_size: int, mem_batch_size: int, alpha: float, beta: float) -> Built:
    """Dark experience replay++, with the labels of the memory."""
    return _der(context, "derpp_avalanche", mem_size=mem_size, batch_size_mem=mem_batch_size, alpha=alpha, beta=beta)


def _der(context: Context, name: str, **hyperparameters: Any) -> Built:
    need_full_head(context, name, "it compares logits with stored ones")
    strategy = DER(**context.arguments(context.model()), **hyperparameters)
    return context.built(strategy, strategy.storage_policy)


def er_ace(context: Context, mem_size: int, mem_batch_size: int) -> Built:
    """ER-ACE."""
    strategy = ER_ACE(**context.arguments(context.model()), mem_size=mem_size, batch_size_mem=mem_batch_size)
    strategy.ace_criterion = MendedACE(strategy._criterion)
    return context.built(strategy, strategy.storage_policy)


def mir(context: Context, mem_size: int, mem_batch_size: int, subsample: int) -> Built:
    """Maximally interfered retrieval among `subsample` candidates."""
    if subsample < mem_batch_size:
        raise ValueError(f"mir chooses mem_batch_size ({mem_batch_size}) of its subsample ({subsample}) candidates")
    plugin = MendedMIR(mem_batch_size, mem_size=mem_size, subsample=subsample)
    return context.built(Naive(**context.arguments(context.model(), plugin)), plugin)


def gss(context: Context, mem_size: int, mem_batch_size: int, mem_strength: int) -> Built:
    """Gradient-based sample selection, greedy."""
    step = context.budget.batch_size + mem_batch_size
    if mem_size <= step:
        raise ValueError(
            f"gss draws as many samples of its memory as a step sees: mem_size is {mem_size} and a step sees {step}"
        )
    plugin = MendedGSS(mem_size, mem_strength, context.input_shape, mem_batch_size)
    return context.built(Naive(**context.arguments(context.model(), plugin)), plugin)


def icarl(context: Context, mem_size: int) -> Built:
    """iCaRL: the trunk is distilled, the nearest mean of exemplars predicts."""
    name_class_order(context.benchmark, context.classes_per_experience)
    network = context.model()
    arguments = context.arguments(network, RestingTeacher())
    for chosen_by_icarl in ("model", "criterion"):
        del arguments[chosen_by_icarl]
    strategy = ICaRL(
        feature_extractor=network.features, classifier=network.classifier,
        memory_size=mem_size, buffer_transform=None, fixed_memory=True, **arguments,
    )  # fmt: skip
    built = context.built(strategy, strategy.plugins)
    built.logits = lambda x, task: exemplar_logits(strategy, x, context.classes)
    return built


def bic(context: Context, mem_size: int, mem_batch_size: int, temperature: float, stage_2_epochs: int) -> Built:
    """Bias correction: distillation, then two numbers that correct the newest classes' logits."""
    plugin = MendedBiC(
        mem_size=mem_size, batch_size=context.budget.batch_size, batch_size_mem=mem_batch_size,
        T=temperature, stage_2_epochs=stage_2_epochs,
    )  # fmt: skip
    if int(plugin.val_percentage * mem_size) < context.classes:
        raise ValueError(
            f"bic sets a tenth of its memory aside and needs a sample a class there: mem_size is {mem_size}, "
            f"the stream has {context.classes} classes"
        )
    strategy = Naive(**context.arguments(context.model(), plugin))
    built = context.built(strategy, plugin)
    built.logits = lambda x, task: context.pad(plugin.bias_forward(strategy.model(x)))
    return built


def generative_replay(context: Context, latent: int, generator_lr: float) -> Built:
    """Generative replay: samples of a VAE, labelled by the old network, stand for the past."""
    first = context.benchmark.train_stream[0].dataset
    samples = as_tensors(first.subset(range(min(RANGE_SAMPLES, len(first)))))[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.key("generator"))
        vae = MendedVAE(context.input_shape, latent, float(samples.min()), float(samples.max()), context.device)
    generator = VAETraining(
        model=vae.to(context.device),
        optimizer=torch.optim.Adam(vae.parameters(), lr=generator_lr, weight_decay=1e-4),
        criterion=VAE_loss, train_mb_size=context.budget.batch_size, train_epochs=context.budget.epochs,
        eval_mb_size=512, device=context.device, evaluator=QuietEvaluation(),
        plugins=[GenerativeReplayPlugin(), BatchedLoading(seed=context.seed)],
    )  # fmt: skip
    replayer = GenerativeReplayPlugin(generator_strategy=generator)
    strategy = Naive(**context.arguments(context.model(), TrainGeneratorAfterExpPlugin(), replayer))

    def extra() -> int:
        old = [vars(replayer).get(name) for name in ("old_generator", "old_model")]
        return held_bytes([vae, *old], without=strategy.model)

    return context.built(strategy, extra_bytes=extra)
