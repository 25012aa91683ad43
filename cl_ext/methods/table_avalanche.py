"""Avalanche's own methods as rows, readable top to bottom; imports neither torch nor Avalanche.

`mends` are the faults of Avalanche 0.6.0 that we mend from outside (`cl_ext/_avalanche_methods`, each with a test that
fails without it); `faults` stay and become footnotes. Default strengths are starting points, not tuned values.
"""

from cl_ext.methods.method import HyperParameter, Method, strength
from cl_ext.methods.table_avalanche_rehearsal import REHEARSAL_ROWS, TEMPERATURE

_REGULARISATION = "cl_ext.methods.avalanche"
_ARCHITECTURE = "cl_ext.methods.avalanche_architecture"


_BATCH_FISHER = (
    "the Fisher is the square of the batch-mean gradient, about 1/B of the per-sample one: strengths are not "
    "comparable across batch sizes"
)

AVALANCHE_ROWS = (
    # ---- regularisers ------------------------------------------------------------------------------------------
    Method(
        "ewc_avalanche",
        source="avalanche",
        paper="EWC (Kirkpatrick et al. 2017)",
        cites=("kirkpatrick2017overcoming",),
        build=f"{_REGULARISATION}:ewc",
        hyperparameters={"ewc_lambda": strength(100.0, 0, 9, "penalty strength, no 1/2")},
        stores="an importance and an anchor an experience",
        faults=(_BATCH_FISHER, "a step costs a penalty a past experience: 3.5 times naive at task 5"),
        limit=({"ewc_lambda": 0.0}, "naive"),
    ),
    Method(
        "ewc_online_avalanche",
        source="avalanche",
        paper="online EWC (Schwarz et al. 2018, Progress & Compress)",
        cites=("schwarz2018progress",),
        build=f"{_REGULARISATION}:ewc_online",
        hyperparameters={
            "ewc_lambda": strength(100.0, 0, 9, "penalty strength, no 1/2"),
            "decay_factor": HyperParameter(1.0, search=(0.5, 0.9, 1.0), low=0.0, high=1.0, note="of old importances"),
        },
        stores="an importance and an anchor",
        faults=(_BATCH_FISHER,),
        limit=({"ewc_lambda": 0.0}, "naive"),
    ),
    Method(
        "si_avalanche",
        source="avalanche",
        paper="SI (Zenke et al. 2017)",
        cites=("zenke2017continual",),
        build=f"{_REGULARISATION}:si",
        hyperparameters={
            "si_lambda": strength(100.0, -1, 6, "penalty strength, with a 1/2"),
            "eps": HyperParameter(1e-7, search=(1e-7, 1e-3, 0.1), low=1e-30, note="damping of the importances"),
        },
        stores="an importance, an anchor and four more copies of the weights",
        mends=("weights are copied; stock they are views on the CPU, and SI equals fine-tuning bit for bit",),
        faults=(
            "importances are cut at 0.001 and may be negative",
            "the path integral follows the whole gradient, the penalty's included",
            "batch norm's parameters are left free",
        ),
        limit=({"si_lambda": 0.0}, "naive"),
    ),
    Method(
        "mas_avalanche",
        source="avalanche",
        paper="MAS (Aljundi et al. 2018)",
        cites=("aljundi2018memory",),
        build=f"{_REGULARISATION}:mas",
        hyperparameters={
            "mas_lambda": strength(0.1, -3, 4, "penalty strength, no 1/2"),
            "alpha": HyperParameter(0.5, search=(0.25, 0.5, 0.75), low=0.0, high=1.0, note="weight of old importances"),
        },
        stores="an importance and an anchor",
        mends=(
            "importances are taken in evaluation mode; stock they are a further epoch of batch norm updates",
            "a loss of exactly 0 is no error",
        ),
        faults=(
            "the importance is the size of the batch-mean gradient, not the mean of the samples' sizes",
            "old and new importances are averaged, where the paper adds them",
        ),
        limit=({"mas_lambda": 0.0}, "naive"),
    ),
    Method(
        "rwalk_avalanche",
        source="avalanche",
        paper="RWalk (Chaudhry et al. 2018)",
        cites=("chaudhry2018riemannian",),
        build=f"{_REGULARISATION}:rwalk",
        hyperparameters={
            "rwalk_lambda": strength(1.0, -3, 3, "penalty strength, no 1/2"),
            "alpha": HyperParameter(0.9, search=(0.5, 0.9), low=0.0, high=1.0, note="weight of the newest batch"),
            "delta_t": HyperParameter(10, search=(10, 50), low=1, note="steps between scores"),
        },
        stores="importances, scores, anchors: nine copies of the weights",
        mends=(
            "training stays in train mode; stock dropout and batch norm are off throughout",
            "an experience shorter than delta_t is scored at its end; stock the weights become NaN",
            "parameters that come with an experience are scored; stock they are an error",
        ),
        faults=(
            "the Fisher remembers about one batch: the newest has the weight 0.9",
            "scores explode where a weight hardly moved: the damping is 1.2e-7, the authors' 1e-3",
            "steps after the last whole delta_t of an experience are dropped",
            "a second pass forward and backward in each step: 2 to 3.5 times naive",
        ),
        limit=({"rwalk_lambda": 0.0}, "naive"),
    ),
    # ---- distillation ------------------------------------------------------------------------------------------
    Method(
        "lwf_avalanche",
        source="avalanche",
        paper="LwF (Li & Hoiem 2016)",
        cites=("li2016learning",),
        build=f"{_REGULARISATION}:lwf",
        hyperparameters={
            "lwf_lambda": strength(1.0, -3, 3, "weight of the distillation"),
            "temperature": TEMPERATURE,
        },
        stores="a teacher",
        mends=(
            "the teacher is in evaluation mode; stock its batch norm goes on learning on the new task",
            "each past task's classes are distilled; stock, with one head, those of the first task only",
        ),
        faults=("the distillation lacks the factor temperature^2",),
        limit=({"lwf_lambda": 0.0}, "naive"),
    ),
    Method(
        "lfl",
        source="avalanche",
        paper="less-forgetting learning (Jung et al. 2016)",
        cites=("jung2016less",),
        build=f"{_REGULARISATION}:lfl",
        hyperparameters={"lfl_lambda": strength(1.0, -3, 3, "weight of the features' distance")},
        stores="a teacher",
        mends=("training stays in train mode; stock it is left for evaluation mode at the second experience",),
        faults=("the classifier is frozen after the first experience: later classes keep its initial rows",),
    ),
    Method(
        "cwr_star",
        source="avalanche",
        paper="CWR* (Lomonaco et al. 2020, Rehearsal-Free Continual Learning over Small Non-I.I.D. Batches)",
        cites=("lomonaco2020rehearsal",),
        build=f"{_REGULARISATION}:cwr_star",
        stores="the classifier's rows",
        faults=(
            "the trunk is frozen after the first experience, whose classes alone shape it",
            "the bias is neither reset nor averaged",
        ),
    ),
    # ---- rehearsal ---------------------------------------------------------------------------------------------
    *REHEARSAL_ROWS,
    # ---- architectures -----------------------------------------------------------------------------------------
    Method(
        "pnn_avalanche",
        source="avalanche",
        paper="progressive networks (Rusu et al. 2016)",
        cites=("rusu2016progressive",),
        networks=("mlp",),
        heads=("full",),
        build=f"{_ARCHITECTURE}:pnn",
        scenarios=("task",),
        needs_task_label=True,
        hyperparameters={
            "adapter": HyperParameter("mlp", search=("mlp", "linear"), choices=("mlp", "linear"), note="lateral layers")
        },
        stores="nothing beside the network, which grows by a column an experience",
        mends=("evaluation makes no columns; stock it freezes those of later tasks before they are trained",),
        faults=(
            "fully connected columns of one width only",
            "the first layer's lateral connections are always the MLP ones",
            "21 model sizes at 5 tasks for 784-400-400",
        ),
    ),
    Method(
        "packnet_avalanche",
        source="avalanche",
        paper="PackNet (Mallya & Lazebnik 2018)",
        cites=("mallya2018packnet",),
        networks=("mlp", "cnn"),
        heads=("full",),
        build=f"{_ARCHITECTURE}:packnet",
        scenarios=("task",),
        needs_task_label=True,
        hyperparameters={
            "prune_proportion": HyperParameter(
                0.5, search=(0.5, 0.75, 0.9), low=0.0, high=1.0, note="left to later tasks"
            ),
            "retrain_share": HyperParameter(1 / 3, search=(0.2, 1 / 3, 0.5), low=0.0, high=1.0, note="of the epochs"),
        },
        stores="a task index and two masks a weight",
        mends=(
            "frozen weights are put back after each step; stock weight decay moves them, by 0.02 a task at 0.001",
            "each task has its own rows of the classifier; stock half of them freeze before their task begins",
            "evaluation leaves the active task as it is, also between pruning and retraining",
        ),
        faults=("no batch norm: no ResNets", "biases are trained by the first task alone"),
    ),
)
