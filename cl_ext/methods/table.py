"""The table of every method that can be compared, readable top to bottom; imports neither torch nor Avalanche."""

from cl_ext.methods.method import Method, MethodTable
from cl_ext.methods.table_architecture import ARCHITECTURE_ROWS
from cl_ext.methods.table_avalanche import AVALANCHE_ROWS
from cl_ext.methods.table_avalanche_rehearsal import SPLIT_BY_TASK
from cl_ext.methods.table_ours import OUR_ROWS
from cl_ext.methods.table_replay import REPLAY_ROWS

_REFERENCES = "cl_ext.methods.references"

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
            cites=("chaudhry2018riemannian",),
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
            stores="nothing beside its networks, one an experience",
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
        *OUR_ROWS,
        *REPLAY_ROWS,
        *ARCHITECTURE_ROWS,
    )
)
