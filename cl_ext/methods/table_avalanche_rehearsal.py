"""Avalanche's rehearsal methods as rows (see `table_avalanche`); imports neither torch nor Avalanche."""

from cl_ext.methods.method import HyperParameter, Method, strength

_REHEARSAL = "cl_ext.methods.avalanche_rehearsal"

_MEMORY = HyperParameter(200, search=(100, 200, 500, 1000), low=1, note="samples kept in all")
_MEMORY_BATCH = HyperParameter(32, search=(10, 32, 64), low=1, note="samples of the memory in a step")
TEMPERATURE = HyperParameter(2.0, search=(1.0, 2.0, 4.0), low=1e-6, note="softens the old outputs")

SPLIT_BY_TASK = (
    "in task-incremental streams a batch is split evenly over the task labels in it: it needs a sample for each"
)
_ONE_BATCH_NORM = "passes over memory samples move the batch norm's statistics too"

REHEARSAL_ROWS = (
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
            "temperature": TEMPERATURE,
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
)
