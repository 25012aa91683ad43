"""The table of every method that can be compared, readable top to bottom; imports neither torch nor Avalanche."""

from cl_ext.methods.method import HyperParameter, Method, MethodTable, strength
from cl_ext.methods.table_avalanche import AVALANCHE_ROWS, SPLIT_BY_TASK

_REFERENCES = "cl_ext.methods.references"
_OURS = "cl_ext.methods.ours"

METHODS = MethodTable(
    (
        # ---- references: the yardsticks ------------------------------------------------------------------------
        Method(
            "naive",
            source="avalanche",
            paper="fine-tuning: the lower reference",
            build=f"{_REFERENCES}:naive",
            reference=True,
        ),
        Method(
            "joint",
            source="avalanche",
            paper="training once on all data: the upper reference",
            build=f"{_REFERENCES}:joint",
            stores="all data",
            faults=(SPLIT_BY_TASK,),
            reference=True,
        ),
        Method(
            "joint_incremental",
            source="cl_ext",
            paper="a fresh network on experiences 1..k at each k: the a*_k of intransigence (Chaudhry et al. 2018)",
            build=f"{_REFERENCES}:joint_incremental",
            stores="all data",
            faults=(SPLIT_BY_TASK,),
            reference=True,
        ),
        Method(
            "cumulative",
            source="avalanche",
            paper="going on, at each experience, on all data so far",
            build=f"{_REFERENCES}:cumulative",
            stores="all data",
            faults=(SPLIT_BY_TASK,),
            reference=True,
        ),
        Method(
            "separate",
            source="cl_ext",
            paper="a network of its own for each experience",
            build=f"{_REFERENCES}:separate",
            scenarios=("task",),
            needs_task_label=True,
            stores="a network an experience",
            reference=True,
        ),
        Method(
            "from_scratch",
            source="avalanche",
            paper="the network is reset at each experience",
            build=f"{_REFERENCES}:from_scratch",
            stores="the initial weights",
            reference=True,
        ),
        # ---- Avalanche's rows ----------------------------------------------------------------------------------
        *AVALANCHE_ROWS,
        # ---- ours ----------------------------------------------------------------------------------------------
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
                "alpha": HyperParameter(
                    0.25, search=(0.0, 0.25, 0.5), low=0.0, high=1.0, note="weight of the old Gamma"
                ),
                "mode": HyperParameter(
                    "exact", choices=("exact", "sliced", "minibatch"), note="how slices are averaged"
                ),
                "slices": HyperParameter(100, search=(10, 100, 1000), low=1, note="in mode sliced"),
            },
            stores="importances and anchors",
            limit=({"scp_lambda": 0.0}, "naive"),
        ),
    )
)
