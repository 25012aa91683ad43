"""The rows of this package's plugins that replay samples, and of fast and slow learners; imports no torch."""

from cl_ext.methods.method import HyperParameter, Method, strength

_OURS = "cl_ext.methods.ours"
_MEMORY = HyperParameter(200, search=(100, 200, 500, 1000), low=0, note="samples kept in all")
_FEATURE_WEIGHTS = ("correlation", "identity", "shuffled", "variance")
_CLSER = {
    "clser_lambda": strength(0.1, -3, 3, "weight of the consistency, a mean over the outputs"),
    "mem_size": _MEMORY,
    "mem_batch_size": HyperParameter(32, search=(10, 32, 64, 128), low=1, note="of the memory in a step"),
    "plastic_alpha": HyperParameter(0.999, search=(0.9, 0.99, 0.999), low=0.0, high=1.0, note="decay of P"),
    "stable_alpha": HyperParameter(0.999, search=(0.9, 0.99, 0.999), low=0.0, high=1.0, note="decay of S"),
    "plastic_rate": HyperParameter(0.9, search=(0.5, 0.9, 1.0), low=0.0, high=1.0, note="share of steps that update P"),
    "stable_rate": HyperParameter(0.7, search=(0.1, 0.7, 0.9), low=0.0, high=1.0, note="share of steps that update S"),
    "bn": HyperParameter("buffer-forward", choices=("buffer-forward", "ema", "copy"), note="batch norm of P and S"),
}
_CLSER_PAPER = "CLS-ER (Arani et al. 2022, Learning Fast, Learning Slow)"
_SIMILARITIES = ("product", "feature", "readout", "fisher", "correlation", "constant")
_PREDICTORS = ("stable", "working", "mean_weights", "max_softmax", "ensemble")

REPLAY_ROWS = (
    # ---- rehearsal -------------------------------------------------------------------------------------------------
    Method(
        "er",
        source="cl_ext",
        paper="experience replay with a reservoir (Riemer et al. 2019, Chaudhry et al. 2019)",
        cites=("riemer2019learning", "chaudhry2019tiny"),
        build=f"{_OURS}:er",
        hyperparameters={
            "mem_size": _MEMORY,
            "mem_batch_size": HyperParameter(10, search=(10, 32, 64, 128), low=1, note="of the memory in a step"),
        },
        stores="samples",
        limit=({"mem_size": 0}, "naive"),
    ),
    Method(
        "der",
        source="cl_ext",
        paper="DER (Buzzega et al. 2020, Dark Experience for General Continual Learning)",
        cites=("buzzega2020dark",),
        build=f"{_OURS}:der",
        hyperparameters={
            "alpha": strength(0.2, -3, 2, "weight of the logits' distance, a mean over the outputs"),
            "mem_size": _MEMORY,
            "mem_batch_size": HyperParameter(10, search=(10, 32, 64, 128), low=1, note="of the memory in a step"),
        },
        stores="samples and their logits",
        limit=({"alpha": 0.0}, "naive"),
    ),
    Method(
        "derpp",
        source="cl_ext",
        paper="DER++ (Buzzega et al. 2020, Dark Experience for General Continual Learning)",
        cites=("buzzega2020dark",),
        build=f"{_OURS}:derpp",
        hyperparameters={
            "alpha": strength(0.2, -3, 2, "weight of the logits' distance, a mean over the outputs"),
            "beta": HyperParameter(1.0, search=(0.1, 0.5, 1.0, 2.0), low=0.0, note="weight of the labels' loss"),
            "mem_size": _MEMORY,
            "mem_batch_size": HyperParameter(128, search=(10, 32, 64, 128), low=1, note="of the memory, twice a step"),
        },
        stores="samples and their logits",
        limit=({"alpha": 0.0, "beta": 0.0}, "naive"),
    ),
    # ---- generative replay -----------------------------------------------------------------------------------------
    Method(
        "generative_replay",
        source="cl_ext",
        paper="deep generative replay (Shin et al. 2017)",
        cites=("shin2017continual",),
        build=f"{_OURS}:generative_replay",
        hyperparameters={
            "r": HyperParameter(0.0, search=(0.0, 0.1, 0.3, 0.5), low=0.0, high=1.0, note="of the new one; 0: 1/i"),
            "labels": HyperParameter("hard", choices=("hard", "soft"), note="the old solver's answers"),
            "temperature": HyperParameter(2.0, search=(1.0, 2.0, 4.0), low=1e-3, note="T, of soft labels"),
            "latent": HyperParameter(100, search=(8, 20, 50, 100), low=1, note="units of the VAE's code"),
            "hidden": HyperParameter(400, search=(100, 200, 400), low=1, note="of each of the VAE's two hidden layers"),
            "generator_lr": HyperParameter(1e-3, search=(1e-4, 1e-3, 1e-2), low=1e-9, note="Adam's, of the VAE"),
            "generator_epochs": HyperParameter(10, search=(2, 5, 10, 20), low=1, note="passes over the union"),
            "generator_iterations": HyperParameter(0, search=(0, 500, 1000, 2000), low=0, note="instead; 0: by epochs"),
        },
        stores="two generators and the old network",
        faults=("a small fully connected VAE: no rival on natural images",),
        limit=({"r": 1.0}, "naive"),
    ),
    # ---- fast and slow learners ------------------------------------------------------------------------------------
    *(
        Method(
            name,
            source="cl_ext",
            paper=f"{_CLSER_PAPER}, {network} network",
            cites=("arani2022learning",),
            build=f"{_OURS}:{name}",
            hyperparameters=_CLSER,
            stores="samples and two networks",
            limit=({"clser_lambda": 0.0} | equal, "er"),
        )
        for name, network, equal in (
            ("clser", "stable", {"stable_alpha": 0.0, "stable_rate": 1.0, "bn": "copy"}),
            ("clser_plastic", "plastic", {"plastic_alpha": 0.0, "plastic_rate": 1.0, "bn": "copy"}),
            ("clser_working", "working", {}),
        )
    ),
    Method(
        "sim_ema",
        source="cl_ext",
        paper="this package's own: CLS-ER with an average for each group of similar tasks",
        cites=("arani2022learning",),
        build=f"{_OURS}:sim_ema",
        hyperparameters={
            "sim_ema_lambda": strength(0.1, -3, 3, "weight of the consistency, a mean over the outputs"),
            "mem_size": _MEMORY,
            "mem_batch_size": HyperParameter(32, search=(10, 32, 64, 128), low=1, note="of the memory in a step"),
            "similarity": HyperParameter("product", choices=_SIMILARITIES, note="what of two tasks is compared"),
            "phi": HyperParameter("prop", choices=("prop", "const", "inverse"), note="a teacher's weight: s, 1, 1 - s"),
            "tau_join": HyperParameter(0.5, search=(0.3, 0.5, 0.7, 0.9), low=0.0, high=1.0, note="least s to join"),
            "max_groups": HyperParameter(5, search=(1, 2, 5, 10), low=1, note="then the two closest are merged"),
            "rate_min": HyperParameter(0.0, search=(0.0, 0.1, 0.5), low=0.0, high=1.0, note="of updates at s = 0"),
            "rate_max": HyperParameter(1.0, search=(0.5, 0.9, 1.0), low=0.0, high=1.0, note="of updates at s = 1"),
            "alpha": HyperParameter(0.99, search=(0.9, 0.99, 0.999), low=0.0, high=1.0, note="decay of the groups'"),
            "stable_alpha": HyperParameter(0.999, search=(0.9, 0.99, 0.999), low=0.0, high=1.0, note="decay of S"),
            "stable_rate": HyperParameter(0.7, search=(0.1, 0.7, 1.0), low=0.0, high=1.0, note="of updates of S"),
            "n_signature": HyperParameter(500, search=(100, 500), low=1, high=500, note="samples that are measured"),
            "teacher": HyperParameter("group", choices=("group", "best"), note="best: of the group's and S"),
            "eval_model": HyperParameter("stable", choices=_PREDICTORS, note="which networks predict"),
            "bn": HyperParameter("ema", choices=("ema", "copy"), note="batch norm of the averages"),
        },
        stores="samples, a network a group, one of all tasks and a frozen one",
        limit=({"sim_ema_lambda": 0.0, "eval_model": "working"}, "er"),
    ),
    Method(
        "dualnet",
        source="cl_ext",
        paper="DualNet (Pham et al. 2021, DualNet: Continual Learning, Fast and Slow)",
        cites=("pham2021dualnet",),
        build=f"{_OURS}:dualnet",
        hyperparameters={
            "dualnet_lambda": strength(2.0, -3, 3, "weight of the distillation on memory, no T^2"),
            "mem_size": _MEMORY,
            "mem_batch_size": HyperParameter(10, search=(10, 32, 64), low=1, note="of the memory in a fast step"),
            "n_outer": HyperParameter(1, search=(0, 1, 2), low=0, note="rounds of Look-ahead a batch"),
            "inner_steps": HyperParameter(2, search=(1, 2, 4), low=1, note="slow steps in a round"),
            "fast_steps": HyperParameter(2, search=(1, 2), low=1, note="supervised steps a batch"),
            "beta": HyperParameter(0.05, search=(0.05, 0.1, 0.5, 1.0), low=0.0, high=1.0, note="Look-ahead's factor"),
            "slow_lr": HyperParameter(3e-4, search=(1e-4, 3e-4, 1e-3, 1e-2), low=1e-9, note="of the slow steps"),
            "ssl_batch_size": HyperParameter(64, search=(32, 64, 128), low=2, note="of the memory in a slow step"),
            "projection": HyperParameter(64, search=(64, 256), low=1, note="units of the projector's two layers"),
            "temperature": HyperParameter(2.0, search=(1.0, 2.0, 4.0), low=1e-3, note="T, of both softmaxes"),
            "preset": HyperParameter("paper", choices=("paper", "code"), note="where paper and code differ"),
            "feature_lambda": strength(0.0, -3, 3, "weight of holding the slow net's features; not the paper's"),
            "feature_weights": HyperParameter("correlation", choices=_FEATURE_WEIGHTS, note="which features to hold"),
            "feature_decay": HyperParameter(0.99, search=(0.9, 0.99, 0.999), low=0.0, high=0.9999, note="of C-bar"),
            "consolidation": HyperParameter("constant", choices=("constant", "invariance"), note="of Look-ahead"),
        },
        stores="samples, their old logits, a projector, the slow net before a round; to hold features, an old one",
        faults=("it trains a slow/fast pair, which has more weights than the study's network",),
    ),
)
