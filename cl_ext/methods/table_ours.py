"""The rows of this package's own plugins, readable top to bottom; imports neither torch nor Avalanche."""

from cl_ext.methods.method import HyperParameter, Method, strength

_OURS = "cl_ext.methods.ours"

OUR_ROWS = (
    # ---- regularisers: a quadratic penalty -----------------------------------------------------------------------
    Method(
        "rwalk",
        source="cl_ext",
        paper="RWalk (Chaudhry et al. 2018)",
        build=f"{_OURS}:rwalk",
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
        hyperparameters={
            "scp_lambda": strength(100.0, -2, 5, "penalty strength, no 1/2"),
            "alpha": HyperParameter(0.25, search=(0.0, 0.25, 0.5), low=0.0, high=1.0, note="weight of the old Gamma"),
            "mode": HyperParameter("exact", choices=("exact", "sliced", "minibatch"), note="how slices are averaged"),
            "slices": HyperParameter(100, search=(10, 100, 1000), low=1, note="in mode sliced"),
        },
        stores="importances and anchors",
        limit=({"scp_lambda": 0.0}, "naive"),
    ),
    # ---- distillation --------------------------------------------------------------------------------------------
    # ---- projections of the gradient -----------------------------------------------------------------------------
    # ---- merging ---------------------------------------------------------------------------------------------------
)
