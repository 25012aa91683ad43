"""How this package's own methods are built: fine-tuning with one plugin."""

from typing import Any

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)
from cl_ext.methods.context import Built, Context
from cl_ext.models import Network
from cl_ext.models import dualnet as make_pair
from cl_ext.plugins import (
    AGEMPlugin,
    CLSERPlugin,
    DERPlugin,
    DualNetPlugin,
    EBLLPlugin,
    EMAOGDPlugin,
    ERPlugin,
    EWCPlugin,
    GEMPlugin,
    GenerativeReplayPlugin,
    IMMPlugin,
    L2Plugin,
    LocalMASPlugin,
    LwFPlugin,
    MASPlugin,
    OGDPlugin,
    RWalkPlugin,
    SCPPlugin,
    SimEMAPlugin,
    SIPlugin,
)
from cl_ext.plugins.clser import EvaluationModel
from cl_ext.plugins.imm import MergedHeads
from cl_ext.plugins.ogd_ema import POINTS, Points

import torch
from avalanche.models.utils import avalanche_forward
from avalanche.training.supervised import Naive


def agem(context: Context, mem_size: int, mem_batch_size: int) -> Built:
    """A-GEM; the memory is split evenly over the experiences of the stream."""
    plugin = AGEMPlugin(_each(context, "agem", mem_size), mem_batch_size, seed=context.key("memory"))
    return context.fine_tuning_with(plugin)


def clser(
    context: Context, clser_lambda: float, mem_size: int, mem_batch_size: int, plastic_alpha: float,
    stable_alpha: float, plastic_rate: float, stable_rate: float, bn: str, eval_model: EvaluationModel = "stable",
) -> Built:  # fmt: skip
    """CLS-ER; the stable network predicts. Its memory is that of `er`, sample by sample."""
    plugin = CLSERPlugin(
        clser_lambda, mem_size, mem_batch_size, plastic_alpha, stable_alpha, plastic_rate, stable_rate, eval_model,
        bn, seed=context.key("memory"),  # type: ignore[arg-type]
    )  # fmt: skip
    strategy = Naive(**context.arguments(context.model(), plugin))
    built = context.built(strategy, plugin)
    built.networks = lambda: [plugin.evaluated_network(strategy.model)]
    built.logits = lambda x, task: context.pad(avalanche_forward(plugin.evaluated_network(strategy.model), x, task))
    return built


def clser_plastic(context: Context, **hyperparameters: Any) -> Built:
    """CLS-ER; the plastic network predicts."""
    return clser(context, **hyperparameters, eval_model="plastic")


def clser_working(context: Context, **hyperparameters: Any) -> Built:
    """CLS-ER; the working network predicts."""
    return clser(context, **hyperparameters, eval_model="working")


def der(context: Context, alpha: float, mem_size: int, mem_batch_size: int) -> Built:
    """Dark experience replay; its memory comes from generators of the cell's seed."""
    plugin = DERPlugin(alpha, 0.0, mem_size, mem_batch_size, seed=context.key("memory"))
    return context.fine_tuning_with(plugin)


def derpp(context: Context, alpha: float, beta: float, mem_size: int, mem_batch_size: int) -> Built:
    """Dark experience replay++: with the labels of the memory, too."""
    plugin = DERPlugin(alpha, beta, mem_size, mem_batch_size, seed=context.key("memory"))
    return context.fine_tuning_with(plugin)


def dualnet(
    context: Context, dualnet_lambda: float, mem_size: int, mem_batch_size: int, n_outer: int, inner_steps: int,
    fast_steps: int, beta: float, slow_lr: float, ssl_batch_size: int, projection: int, temperature: float, preset: str,
    feature_lambda: float, feature_weights: str, feature_decay: float, consolidation: str,
) -> Built:  # fmt: skip
    """DualNet on a slow/fast pair made of the study's network; task-aware where the scenario is."""
    aware = context.scenario == "task"
    plugin = DualNetPlugin(
        dualnet_lambda, _each(context, "dualnet", mem_size) if aware else mem_size, mem_batch_size, aware,
        preset, n_outer=n_outer, inner_steps=inner_steps, fast_steps=fast_steps, beta=beta,  # type: ignore[arg-type]
        slow_lr=slow_lr, ssl_batch_size=ssl_batch_size, projection=(projection, projection), temperature=temperature,
        feature_lambda=feature_lambda, feature_weights=feature_weights,  # type: ignore[arg-type]
        feature_decay=feature_decay, consolidation=consolidation, seed=context.key("memory"),  # type: ignore[arg-type]
    )  # fmt: skip
    return context.built(Naive(**context.arguments(_pair(context), plugin)), plugin)


def _pair(context: Context) -> Network:
    """The study's network as the slow net of a pair, with its usual weights; the fast net's are the seed's, too."""
    model = context.model()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.key("fast weights"))
        return make_pair(model, context.input_shape)


def ebll(
    context: Context, ebll_lambda: float, lwf_lambda: float, temperature: float, code_size: int, ae_alpha: float,
    ae_lr: float, ae_epochs: int,
) -> Built:  # fmt: skip
    """Encoder based lifelong learning; its auto-encoders come from generators of the cell's seed."""
    plugin = EBLLPlugin(
        ebll_lambda, lwf_lambda, temperature, code_size, ae_alpha, ae_lr, ae_epochs, seed=context.seed
    )  # fmt: skip
    return context.fine_tuning_with(plugin)


def er(context: Context, mem_size: int, mem_batch_size: int) -> Built:
    """Experience replay from a reservoir; it comes from generators of the cell's seed."""
    plugin = ERPlugin(mem_size, mem_batch_size, seed=context.key("memory"))
    return context.fine_tuning_with(plugin)


def ewc(context: Context, ewc_lambda: float, fisher: str) -> Built:
    """EWC with every past experience's anchor in effect; the Fisher's softmax is the scenario's."""
    plugin = EWCPlugin(ewc_lambda, fisher=fisher, seed=context.seed)  # type: ignore[arg-type]
    return context.fine_tuning_with(plugin)


def ewc_online(context: Context, ewc_lambda: float, gamma: float, fisher: str) -> Built:
    """Online EWC with one anchor; the Fisher's softmax is the scenario's."""
    plugin = EWCPlugin(ewc_lambda, mode="online", gamma=gamma, fisher=fisher, seed=context.seed)  # type: ignore[arg-type]
    return context.fine_tuning_with(plugin)


def gem(context: Context, mem_size: int, margin: float) -> Built:
    """GEM; the memory is split evenly over the experiences of the stream."""
    plugin = GEMPlugin(_each(context, "gem", mem_size), margin)
    return context.fine_tuning_with(plugin)


def generative_replay(
    context: Context, r: float, labels: str, temperature: float, latent: int, hidden: int, generator_lr: float,
    generator_epochs: int, generator_iterations: int,
) -> Built:  # fmt: skip
    """Deep generative replay with a VAE; both step with the study's batch size, the VAE with twice that."""
    plugin = GenerativeReplayPlugin(
        r or "1/i", labels=labels, temperature=temperature, generator_epochs=generator_epochs,  # type: ignore[arg-type]
        generator_iterations=generator_iterations or None, generator_lr=generator_lr, latent=latent,
        hidden=(hidden, hidden), seed=context.key("memory"),
    )  # fmt: skip
    return context.fine_tuning_with(plugin)


def imm_mean(context: Context, alpha: float, l2_lambda: float, drop_keep: float) -> Built:
    """Mean-IMM."""
    return _imm(context, IMMPlugin("mean", alpha or None, l2_lambda, drop_keep, _merged_heads(context),
                                   seed=context.seed))  # fmt: skip


def imm_mode(context: Context, alpha: float, l2_lambda: float, drop_keep: float, fisher: str) -> Built:
    """Mode-IMM; the Fisher's softmax is the scenario's."""
    return _imm(context, IMMPlugin("mode", alpha or None, l2_lambda, drop_keep, _merged_heads(context),
                                   fisher=fisher, seed=context.seed))  # type: ignore[arg-type]  # fmt: skip


def _merged_heads(context: Context) -> MergedHeads:
    # task-incremental: a class's row of the head is trained in one experience only, so it is that task's own head
    return "exclude" if context.scenario == "task" else "include"


def _imm(context: Context, plugin: IMMPlugin) -> Built:
    strategy = Naive(**context.arguments(context.model(), plugin))
    built = context.built(strategy, plugin)
    built.networks = lambda: [plugin.merged_network(strategy.model)]
    built.logits = lambda x, task: context.pad(avalanche_forward(plugin.merged_network(strategy.model), x, task))
    return built


def l2(context: Context, l2_lambda: float) -> Built:
    """The L2 penalty around the latest weights."""
    plugin = L2Plugin(l2_lambda)
    return context.fine_tuning_with(plugin)


def lwf(context: Context, lwf_lambda: float, temperature: float) -> Built:
    """Learning without forgetting; which old outputs share a softmax follows from the scenario's loss."""
    plugin = LwFPlugin(lwf_lambda, temperature=temperature)
    return context.fine_tuning_with(plugin)


def mas(context: Context, mas_lambda: float, accumulate: str) -> Built:
    """Memory aware synapses: each sample's own gradient, of the raw logits that the scenario's loss reads."""
    plugin = MASPlugin(mas_lambda, accumulate=accumulate)  # type: ignore[arg-type]
    return context.fine_tuning_with(plugin)


def mas_local(context: Context, mas_lambda: float, accumulate: str) -> Built:
    """Local memory aware synapses: forward only."""
    plugin = LocalMASPlugin(mas_lambda, accumulate=accumulate)  # type: ignore[arg-type]
    return context.fine_tuning_with(plugin)


def ogd(context: Context, n_samples: int, variant: str) -> Built:
    """Orthogonal gradient descent; its samples come from a generator of the cell's seed."""
    plugin = OGDPlugin(n_samples, variant=variant, seed=context.seed)  # type: ignore[arg-type]
    return context.fine_tuning_with(plugin)


def ogd_ema(
    context: Context, n_directions: int, points: Points, plastic_alpha: float, stable_alpha: float,
    plastic_rate: float, stable_rate: float, tolerance: float,
) -> Built:  # fmt: skip
    """OGD at the averages, too; its directions are shared out evenly over the points, all taking the same samples."""
    count = len(POINTS[points])
    if n_directions % count:
        raise ValueError(
            f"ogd_ema shares n_directions out over the {count} points of {points!r}; {n_directions} cannot be divided"
        )
    plugin = EMAOGDPlugin(
        n_directions // count, points, plastic_alpha, stable_alpha, plastic_rate, stable_rate, tolerance=tolerance,
        seed=context.seed,
    )  # fmt: skip
    return context.fine_tuning_with(plugin)


def rwalk(context: Context, rwalk_lambda: float, alpha: float, delta_t: int, epsilon: float, fisher: str) -> Built:
    """Riemannian walk in the paper's form."""
    plugin = RWalkPlugin(rwalk_lambda, alpha=alpha, delta_t=delta_t, epsilon=epsilon, fisher=fisher)  # type: ignore[arg-type]
    return context.fine_tuning_with(plugin)


def scp(context: Context, scp_lambda: float, alpha: float, mode: str, slices: int) -> Built:
    """Sliced Cramer preservation; its slices come from a generator of the cell's seed."""
    plugin = SCPPlugin(scp_lambda, alpha=alpha, mode=mode, slices=slices, seed=context.seed)  # type: ignore[arg-type]
    return context.fine_tuning_with(plugin)


def si(context: Context, si_lambda: float, xi: float) -> Built:
    """Synaptic intelligence in the paper's form."""
    plugin = SIPlugin(si_lambda, xi=xi)
    return context.fine_tuning_with(plugin)


def sim_ema(
    context: Context, sim_ema_lambda: float, mem_size: int, mem_batch_size: int, similarity: str, phi: str,
    tau_join: float, max_groups: int, rate_min: float, rate_max: float, alpha: float, stable_alpha: float,
    stable_rate: float, n_signature: int, teacher: str, eval_model: str, bn: str,
) -> Built:  # fmt: skip
    """SIM-EMA; `eval_model` says which of its networks predict. Its memory is that of `er`, sample by sample."""
    plugin = SimEMAPlugin(
        sim_ema_lambda, mem_size, mem_batch_size, similarity, phi, tau_join, max_groups,  # type: ignore[arg-type]
        rate_min, rate_max, alpha, stable_alpha, stable_rate, n_signature, teacher, eval_model, bn,  # type: ignore[arg-type]
        seed=context.key("memory"),
    )  # fmt: skip
    strategy = Naive(**context.arguments(context.model(), plugin))
    built = context.built(strategy, plugin)
    built.networks = lambda: plugin.evaluated_networks(strategy.model)
    built.logits = lambda x, task: context.pad(plugin.predict(strategy.model, x, task))
    return built


def _each(context: Context, name: str, mem_size: int) -> int:
    """An experience's part of a memory of `mem_size` samples in all; 0 only where that is 0."""
    if 0 < mem_size < context.experiences:
        raise ValueError(
            f"{name} splits mem_size over the {context.experiences} experiences of the stream; mem_size is {mem_size}"
        )
    return mem_size // context.experiences
