"""The rows of this package's plugins that change losses, gradients or weights; imports neither torch nor Avalanche."""

from cl_ext.methods.method import HyperParameter, Method, strength

_OURS = "cl_ext.methods.ours"
_FISHERS = ("exact", "sampled", "empirical", "predicted", "batch")
_MEMORY = HyperParameter(200, search=(100, 200, 500, 1000), low=0, note="samples kept in all")
_POINTS = ("task", "averages", "averages_only", "noise", "signs")
_PLAIN_SGD = "what the projection promises holds for plain SGD only, not with momentum, weight decay or Adam"
_IMM = {
    "alpha": HyperParameter(0.0, search=(0.0, 0.3, 0.5, 0.7, 0.9), low=0.0, high=1.0, note="of the latest; 0: 1/K"),
    "l2_lambda": strength(0.0, -6, 1, "L2-transfer, no 1/2"),
    "drop_keep": HyperParameter(1.0, search=(0.5, 0.8, 1.0), low=0.01, high=1.0, note="drop-transfer; 1: without"),
}
_BETWEEN_MERGES = "between two merges evaluation shows the last merge, with the heads that are being trained"

OUR_ROWS = (
    # ---- regularisers: a quadratic penalty -----------------------------------------------------------------------
    Method(
        "ewc",
        source="cl_ext",
        paper="EWC (Kirkpatrick et al. 2017)",
        build=f"{_OURS}:ewc",
        hyperparameters={
            "ewc_lambda": strength(500.0, 0, 10, "penalty strength, with a 1/2"),
            "fisher": HyperParameter("exact", choices=_FISHERS, note="over which labels; batch is no Fisher"),
        },
        stores="importances and anchors, one of each whatever the experiences",
        limit=({"ewc_lambda": 0.0}, "naive"),
    ),
    Method(
        "ewc_online",
        source="cl_ext",
        paper="online EWC (Schwarz et al. 2018, Progress & Compress)",
        build=f"{_OURS}:ewc_online",
        hyperparameters={
            "ewc_lambda": strength(500.0, 0, 10, "penalty strength, with a 1/2"),
            "gamma": HyperParameter(1.0, search=(0.5, 0.8, 0.95, 1.0), low=0.0, high=1.0, note="of old importances"),
            "fisher": HyperParameter("exact", choices=_FISHERS, note="over which labels; batch is no Fisher"),
        },
        stores="importances and anchors",
        limit=({"ewc_lambda": 0.0}, "naive"),
    ),
    Method(
        "l2",
        source="cl_ext",
        paper="L2 penalty around the latest weights (baseline of Kirkpatrick et al. 2017)",
        build=f"{_OURS}:l2",
        hyperparameters={"l2_lambda": strength(0.01, -4, 3, "penalty strength, no 1/2")},
        stores="anchors and importances of 1",
        limit=({"l2_lambda": 0.0}, "naive"),
    ),
    Method(
        "mas",
        source="cl_ext",
        paper="memory aware synapses (Aljundi et al. 2018)",
        build=f"{_OURS}:mas",
        hyperparameters={
            "mas_lambda": strength(1.0, -4, 5, "penalty strength, no 1/2"),
            "accumulate": HyperParameter("sum", choices=("sum", "mean"), note="importances over experiences"),
        },
        stores="importances, those of earlier experiences, and anchors",
        limit=({"mas_lambda": 0.0}, "naive"),
    ),
    Method(
        "mas_local",
        source="cl_ext",
        paper="local memory aware synapses, l-MAS (Aljundi et al. 2018)",
        build=f"{_OURS}:mas_local",
        hyperparameters={
            "mas_lambda": strength(1.0, -5, 4, "penalty strength, no 1/2"),
            "accumulate": HyperParameter("sum", choices=("sum", "mean"), note="importances over experiences"),
        },
        stores="importances, those of earlier experiences, and anchors",
        limit=({"mas_lambda": 0.0}, "naive"),
    ),
    Method(
        "rwalk",
        source="cl_ext",
        paper="RWalk (Chaudhry et al. 2018)",
        build=f"{_OURS}:rwalk",
        revision=2,
        hyperparameters={
            "rwalk_lambda": strength(0.1, -3, 4, "penalty strength, no 1/2"),
            "alpha": HyperParameter(0.9, search=(0.5, 0.9), low=0.0, high=1.0, note="weight of the newest Fisher"),
            "delta_t": HyperParameter(10, search=(1, 10, 100), low=1, note="steps of a segment of the path"),
            "epsilon": HyperParameter(1e-3, search=(1e-5, 1e-3, 1e-1), low=1e-12, note="damping of the score"),
            "fisher": HyperParameter("per_sample", choices=("per_sample", "batch"), note="how squares are taken"),
        },
        stores="Fisher, scores, path and anchors",
        limit=({"rwalk_lambda": 0.0}, "naive"),
    ),
    Method(
        "scp",
        source="cl_ext",
        paper="sliced Cramer preservation (Kolouri et al. 2020)",
        build=f"{_OURS}:scp",
        revision=2,
        hyperparameters={
            "scp_lambda": strength(100.0, -2, 5, "penalty strength, no 1/2"),
            "alpha": HyperParameter(0.25, search=(0.0, 0.25, 0.5), low=0.0, high=1.0, note="weight of the old Gamma"),
            "mode": HyperParameter("exact", choices=("exact", "sliced", "minibatch"), note="how slices are averaged"),
            "slices": HyperParameter(100, search=(10, 100, 1000), low=1, note="in mode sliced"),
        },
        stores="importances and anchors",
        limit=({"scp_lambda": 0.0}, "naive"),
    ),
    Method(
        "si",
        source="cl_ext",
        paper="SI (Zenke et al. 2017)",
        build=f"{_OURS}:si",
        hyperparameters={
            "si_lambda": strength(0.1, -3, 6, "penalty strength (the paper's c), no 1/2"),
            "xi": HyperParameter(0.1, search=(1e-3, 1e-2, 1e-1, 1.0), low=1e-12, note="damping of the importance"),
        },
        stores="importances, path and anchors",
        limit=({"si_lambda": 0.0}, "naive"),
    ),
    # ---- distillation --------------------------------------------------------------------------------------------
    Method(
        "ebll",
        source="cl_ext",
        paper="encoder based lifelong learning (Rannen et al. 2017)",
        build=f"{_OURS}:ebll",
        hyperparameters={
            "ebll_lambda": strength(0.02, -4, 4, "weight of the codes' squared distance, with a 1/2"),
            "lwf_lambda": strength(1.0, -3, 3, "weight of the distillation, no T^2"),
            "temperature": HyperParameter(2.0, search=(1.0, 2.0, 4.0), low=1e-3, note="T, of both softmaxes"),
            "code_size": HyperParameter(100, search=(10, 30, 100, 300), low=1, note="units of a code"),
            "ae_alpha": HyperParameter(1e-6, search=(1e-6, 1e-3, 1.0), low=0.0, note="weight of the reconstruction"),
            "ae_lr": HyperParameter(0.01, search=(0.01, 0.1, 1.0), low=1e-9, note="Adadelta's learning rate"),
            "ae_epochs": HyperParameter(50, search=(10, 50), low=1, note="passes over an experience's features"),
        },
        stores="a teacher and an encoder for each experience",
        limit=({"ebll_lambda": 0.0}, "lwf"),
    ),
    Method(
        "lwf",
        source="cl_ext",
        paper="LwF (Li & Hoiem 2016)",
        build=f"{_OURS}:lwf",
        hyperparameters={
            "lwf_lambda": strength(1.0, -3, 3, "weight of the distillation, no T^2"),
            "temperature": HyperParameter(2.0, search=(1.0, 2.0, 4.0), low=1e-3, note="T, of both softmaxes"),
        },
        stores="a teacher",
        limit=({"lwf_lambda": 0.0}, "naive"),
    ),
    # ---- projections of the gradient -----------------------------------------------------------------------------
    Method(
        "gem",
        source="cl_ext",
        paper="GEM (Lopez-Paz & Ranzato 2017)",
        build=f"{_OURS}:gem",
        hyperparameters={
            "mem_size": _MEMORY,
            "margin": HyperParameter(0.5, search=(0.0, 0.1, 0.5, 1.0), low=0.0, note="lower bound of the duals"),
        },
        stores="samples, and a gradient an experience",
        faults=(_PLAIN_SGD,),
        limit=({"mem_size": 0}, "naive"),
    ),
    Method(
        "agem",
        source="cl_ext",
        paper="A-GEM (Chaudhry et al. 2019, Efficient Lifelong Learning with A-GEM)",
        build=f"{_OURS}:agem",
        revision=2,
        hyperparameters={
            "mem_size": _MEMORY,
            "mem_batch_size": HyperParameter(256, search=(10, 32, 64, 256), low=1, note="of the memory in a step"),
        },
        stores="samples and two gradients",
        faults=(_PLAIN_SGD,),
        limit=({"mem_size": 0}, "naive"),
    ),
    Method(
        "ogd",
        source="cl_ext",
        paper="orthogonal gradient descent (Farajtabar et al. 2020)",
        build=f"{_OURS}:ogd",
        hyperparameters={
            "n_samples": HyperParameter(200, search=(50, 100, 200), low=0, note="stored directions an experience"),
            "variant": HyperParameter("gtl", choices=("gtl", "all", "ave"), note="which logits' gradients are stored"),
        },
        stores="a direction a sample (factors for linear layers), and two weight vectors",
        faults=("batch norm's running statistics are no parameters: outputs drift through them",),
        limit=({"n_samples": 0}, "naive"),
    ),
    Method(
        "ogd_ema",
        source="cl_ext",
        paper="this package's own: OGD with directions at a fast and a slow average of the weights",
        build=f"{_OURS}:ogd_ema",
        hyperparameters={
            "n_directions": HyperParameter(150, search=(60, 150, 300), low=0, note="an experience's, at all points"),
            "points": HyperParameter("averages", choices=_POINTS, note="weights at which gradients are taken"),
            "plastic_alpha": HyperParameter(0.9, search=(0.9, 0.99), low=0.0, high=1.0, note="decay of theta_P"),
            "stable_alpha": HyperParameter(0.99, search=(0.99, 0.999), low=0.0, high=1.0, note="decay of theta_S"),
            "plastic_rate": HyperParameter(1.0, search=(0.5, 1.0), low=0.0, high=1.0, note="share of updates, P"),
            "stable_rate": HyperParameter(1.0, search=(0.1, 0.5, 1.0), low=0.0, high=1.0, note="share of updates, S"),
            "tolerance": HyperParameter(1e-3, search=(1e-4, 1e-3, 1e-2), low=1e-12, high=1.0, note="of what is new"),
        },
        stores="as many directions as ogd of n_directions samples, and two networks",
        faults=("batch norm's running statistics are no parameters: outputs drift through them",),
        limit=({"n_directions": 0}, "naive"),
    ),
    # ---- merging ---------------------------------------------------------------------------------------------------
    Method(
        "imm_mean",
        source="cl_ext",
        paper="mean-IMM, incremental moment matching (Lee et al. 2017)",
        build=f"{_OURS}:imm_mean",
        hyperparameters=_IMM,
        stores="the earlier weights' mean and number, the merged weights, theta of the last experience for transfers",
        faults=(_BETWEEN_MERGES,),
        limit=({"alpha": 1.0}, "naive"),
    ),
    Method(
        "imm_mode",
        source="cl_ext",
        paper="mode-IMM, incremental moment matching (Lee et al. 2017)",
        build=f"{_OURS}:imm_mode",
        hyperparameters=_IMM | {"fisher": HyperParameter("exact", choices=_FISHERS, note="which diagonal Fisher")},
        stores="the earlier weights' centre, Fisher and number, the merged weights, theta of the last experience",
        faults=(_BETWEEN_MERGES,),
        limit=({"alpha": 1.0}, "naive"),
    ),
)
