"""Avalanche's own methods as rows, readable top to bottom; imports neither torch nor Avalanche.

`mends` are the faults of Avalanche 0.6.0 that we mend from outside (`cl_ext/_avalanche_methods`, each with a test that
fails without it); `faults` stay and become footnotes. Default strengths are starting points, not tuned values.
"""

from cl_ext.methods.method import HyperParameter, Method, strength

_REGULARISATION = "cl_ext.methods.avalanche"
_REHEARSAL = "cl_ext.methods.avalanche_rehearsal"
_ARCHITECTURE = "cl_ext.methods.avalanche_architecture"

_MEMORY = HyperParameter(200, search=(100, 200, 500, 1000), low=1, note="samples kept in all")
_MEMORY_BATCH = HyperParameter(32, search=(10, 32, 64), low=1, note="samples of the memory in a step")
_TEMPERATURE = HyperParameter(2.0, search=(1.0, 2.0, 4.0), low=1e-6, note="softens the old outputs")

_BATCH_FISHER = (
    "the Fisher is the square of the batch-mean gradient, about 1/B of the per-sample one: strengths are not "
    "comparable across batch sizes"
)
SPLIT_BY_TASK = (
    "in task-incremental streams a batch is split evenly over the task labels in it: it needs a sample for each"
)
_ONE_BATCH_NORM = "passes over memory samples move the batch norm's statistics too"

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
            "temperature": _TEMPERATURE,
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
    Method(
        "replay_avalanche",
        source="avalanche",
        paper="experience replay (Chaudhry et al. 2019, On Tiny Episodic Memories)",
        cites=("chaudhry2019tiny",),
        build=f"{_REHEARSAL}:replay",
        hyperparameters={"mem_size": _MEMORY, "mem_batch_size": _MEMORY_BATCH},
        stores="samples",
    ),
    Method(
        "gem_avalanche",
        source="avalanche",
        paper="GEM (Lopez-Paz & Ranzato 2017)",
        cites=("lopezpaz2017gradient",),
        build=f"{_REHEARSAL}:gem",
        hyperparameters={
            "mem_size": _MEMORY,
            "memory_strength": HyperParameter(
                0.5, search=(0.0, 0.1, 0.5, 1.0), low=0.0, note="margin of the projection"
            ),
        },
        stores="samples and a gradient an experience",
        faults=(
            "each step passes over the whole memory: 20 times naive at task 5 with 256 samples a task",
            "what the projection promises holds for plain SGD only, not with momentum, weight decay or Adam",
            _ONE_BATCH_NORM,
        ),
    ),
    Method(
        "agem_avalanche",
        source="avalanche",
        paper="A-GEM (Chaudhry et al. 2019, Efficient Lifelong Learning with A-GEM)",
        cites=("chaudhry2019efficient",),
        build=f"{_REHEARSAL}:agem",
        hyperparameters={"mem_size": _MEMORY, "mem_batch_size": _MEMORY_BATCH},
        stores="samples and a gradient",
        mends=("at least one sample of each experience; stock more experiences than mem_batch_size are an error",),
        faults=(
            "what the projection promises holds for plain SGD only, not with momentum, weight decay or Adam",
            _ONE_BATCH_NORM,
        ),
    ),
    Method(
        "gdumb",
        source="avalanche",
        paper="GDumb (Prabhu et al. 2020)",
        cites=("prabhu2020gdumb",),
        build=f"{_REHEARSAL}:gdumb",
        hyperparameters={"mem_size": _MEMORY},
        stores="samples and the initial weights",
        faults=(
            "an epoch is a pass over the memory: far fewer steps than the others, and no cosine annealing or CutMix",
            SPLIT_BY_TASK,
        ),
    ),
    Method(
        "der_avalanche",
        source="avalanche",
        paper="DER (Buzzega et al. 2020)",
        cites=("buzzega2020dark",),
        heads=("full",),
        build=f"{_REHEARSAL}:der",
        hyperparameters={
            "mem_size": _MEMORY,
            "mem_batch_size": _MEMORY_BATCH,
            "alpha": strength(0.3, -3, 3, "weight of the stored logits"),
        },
        stores="samples with their logits",
        faults=(
            "from the second experience on its loss runs over all classes, in task-incremental streams too",
            "logits are stored after each experience, where the paper stores them as samples arrive",
        ),
    ),
    Method(
        "derpp_avalanche",
        source="avalanche",
        paper="DER++ (Buzzega et al. 2020)",
        cites=("buzzega2020dark",),
        heads=("full",),
        build=f"{_REHEARSAL}:derpp",
        hyperparameters={
            "mem_size": _MEMORY,
            "mem_batch_size": _MEMORY_BATCH,
            "alpha": strength(0.1, -3, 3, "weight of the stored logits"),
            "beta": HyperParameter(0.5, search=(0.1, 0.5, 1.0), low=0.0, note="weight of the stored labels"),
        },
        stores="samples with their logits",
        faults=(
            "from the second experience on its loss runs over all classes, in task-incremental streams too",
            "logits are stored after each experience, where the paper stores them as samples arrive",
            "logits and labels come from one batch of the memory, where the paper draws two",
        ),
        limit=({"alpha": 0.3, "beta": 0.0}, "der_avalanche"),
    ),
    Method(
        "er_ace",
        source="avalanche",
        paper="ER-ACE (Caccia et al. 2022)",
        cites=("caccia2022new",),
        build=f"{_REHEARSAL}:er_ace",
        hyperparameters={"mem_size": _MEMORY, "mem_batch_size": _MEMORY_BATCH},
        stores="samples",
        mends=(
            "the loss is a log-softmax; stock, a gap of about 100 between logits makes it NaN",
            "samples of the memory go through the study's loss; stock they compete among all classes in every scenario",
        ),
        faults=("the memory takes up the whole experience before its first step",),
    ),
    Method(
        "mir",
        source="avalanche",
        paper="MIR (Aljundi et al. 2019, Online Continual Learning with Maximally Interfered Retrieval)",
        cites=("aljundi2019online",),
        build=f"{_REHEARSAL}:mir",
        hyperparameters={
            "mem_size": _MEMORY,
            "mem_batch_size": _MEMORY_BATCH,
            "subsample": HyperParameter(50, search=(50, 100, 200), low=1, note="candidates in a step"),
        },
        stores="samples",
        mends=(
            "candidates are of all past classes; stock those of the last mini-batch, the last experience, never are",
        ),
        faults=(
            "the virtual step is plain SGD's, whatever the optimizer",
            _ONE_BATCH_NORM,
        ),
    ),
    Method(
        "gss",
        source="avalanche",
        paper="GSS-greedy (Aljundi et al. 2019, Gradient Based Sample Selection for Online Continual Learning)",
        cites=("aljundi2019gradient",),
        build=f"{_REHEARSAL}:gss",
        hyperparameters={
            "mem_size": _MEMORY,
            "mem_batch_size": _MEMORY_BATCH,
            "mem_strength": HyperParameter(5, search=(1, 5, 10), low=1, note="batches of the memory to compare with"),
        },
        stores="samples with their scores",
        mends=(
            "scoring leaves no gradient behind; stock it is added to the step's own",
            "only filled slots are replayed; stock empty ones are black images of class 0",
            "a memory that holds less than a step is no error",
        ),
        faults=(
            "samples are scored again at every epoch: the method is made for one pass",
            "replayed samples are candidates for the memory too",
        ),
    ),
    Method(
        "icarl",
        source="avalanche",
        paper="iCaRL (Rebuffi et al. 2017)",
        cites=("rebuffi2017icarl",),
        build=f"{_REHEARSAL}:icarl",
        scenarios=("task", "class"),
        hyperparameters={"mem_size": _MEMORY},
        stores="samples, class means and a teacher",
        mends=(
            "the benchmark is given the class order that iCaRL asks for",
            "classes without exemplars are not predicted; stock their mean is 0, which is often nearest",
            "the teacher's batch norm rests",
        ),
        faults=(
            "its loss, a binary cross-entropy a class, runs over all classes, in task-incremental streams too",
            "that loss is a mean over the classes and wants a learning rate about K times larger (the paper's is 2)",
            "its exemplars carry the task label 0: half of each batch in task-incremental streams",
            "class means average each exemplar with its mirror image, digits too",
            "classes must not come back: no domain-incremental streams",
        ),
    ),
    Method(
        "bic",
        source="avalanche",
        paper="BiC (Wu et al. 2019, Large Scale Incremental Learning)",
        cites=("wu2019large",),
        build=f"{_REHEARSAL}:bic",
        scenarios=("task", "class"),
        hyperparameters={
            "mem_size": _MEMORY,
            "mem_batch_size": _MEMORY_BATCH,
            "temperature": _TEMPERATURE,
            "stage_2_epochs": HyperParameter(200, search=(50, 200), low=1, note="epochs of the bias correction"),
        },
        stores="samples and a teacher",
        mends=(
            "the bias correction's scheduler is built without `verbose`; stock it is an error on this PyTorch",
            "soft targets are normalised over classes, at the given temperature; stock over samples, at 2",
            "samples that were set aside for validation go back into the experience",
        ),
        faults=(
            "only the newest experience's logits are corrected, by two numbers",
            "classes must not come back: no domain-incremental streams",
        ),
    ),
    Method(
        "generative_replay_avalanche",
        source="avalanche",
        paper="deep generative replay (Shin et al. 2017)",
        cites=("shin2017continual",),
        build=f"{_REHEARSAL}:generative_replay",
        hyperparameters={
            "latent": HyperParameter(16, search=(2, 8, 16, 32), low=1, note="units of the VAE's latent space"),
            "generator_lr": HyperParameter(1e-3, search=(1e-4, 1e-3, 1e-2), low=0.0, note="Adam's, of the VAE"),
        },
        stores="a VAE, its copy and a copy of the network",
        mends=(
            "generated values cover the range of the first experience's; stock that of normalised MNIST",
            "the latent deviation is exp(logvar / 2); stock exp(logvar) / 2",
            "a last batch of one sample is no error",
            "the step does not go back through the old generator",
        ),
        faults=(
            "a small fully connected VAE: no rival on natural images",
            "old and new samples weigh the same, however many experiences the old ones stand for",
        ),
    ),
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
