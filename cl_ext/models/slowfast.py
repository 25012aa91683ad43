"""The slow/fast pair of DualNet (Pham, Liu, Hoi, NeurIPS 2021): the paper's ResNet, and one made of a user's network.

Symbols: `x` the images, `h_l = phi_l(h_{l-1})` what stage l of the slow net gives, `m_l >= 0` the mask of stage l of
the fast net, `h'_l = h_l * m_l` the adapted features; `m_1 = g_1(x)`, then `m_l = g_l(h'_{l-1})`.
"""

from collections.abc import Sequence

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)
from cl_ext.models.networks import BasicBlock, Network
from cl_ext.nn.passes import evaluation_mode

import torch
from torch import Tensor, nn


class SlowFast(nn.Module):
    """A trunk whose slow stages are adapted by fast ones, `(B, ...)` -> `(B, D)`.

    Args:
        slow: `phi_l: h_{l-1} -> h_l`.
        fast: `g_l: h'_{l-1} -> m_l`, as many, of equal output shapes; their last step makes the masks >= 0.
        tail: from the last stage's map to features `(B, D)`.

    Raises:
        ValueError: there are not equally many stages of both, or none.
    """

    def __init__(self, slow: Sequence[nn.Module], fast: Sequence[nn.Module], tail: nn.Module) -> None:
        super().__init__()
        if len(slow) != len(fast) or not slow:
            raise ValueError(f"a slow/fast pair has as many slow as fast stages, got {len(slow)} and {len(fast)}")
        self.slow = nn.ModuleList(slow)
        self.fast = nn.ModuleList(fast)
        self.tail = tail

    def forward(self, x: Tensor) -> Tensor:
        """Adapted features `(B, D)`."""
        h = adapted = x
        for phi, g in zip(self.slow, self.fast, strict=True):
            h = phi(h)
            adapted = h * g(adapted)
        return self.tail(adapted)

    def masks(self, x: Tensor) -> list[Tensor]:
        """The masks `m_l`, each of the shape of `h_l`."""
        h, adapted, masks = x, x, []
        for phi, g in zip(self.slow, self.fast, strict=True):
            h = phi(h)
            masks.append(g(adapted))
            adapted = h * masks[-1]
        return masks

    def embed(self, x: Tensor) -> Tensor:
        """The slow net's own features `(B, D)`, without any mask: what its self-supervision sees."""
        for phi in self.slow:
            x = phi(x)
        return self.tail(x)


def slow_fast_of(model: nn.Module) -> SlowFast:
    """The slow/fast trunk of a network.

    Raises:
        TypeError: it has none, or more than one.
    """
    found = [module for module in model.modules() if isinstance(module, SlowFast)]
    if len(found) != 1:
        raise TypeError(
            f"DualNet trains a network with one slow/fast trunk, {type(model).__name__} has {len(found)}: "
            "make the pair with cl_ext.models.dualnet(model, input_shape) before the optimizer is made"
        )
    return found[0]


def dualnet_resnet18(classes: int, channels: int = 3, width: int = 64) -> Network:
    """The paper's pair: a ResNet-18 with a pooled stem, and four blocks of one convolution.

    Args:
        classes: K.
        channels: of the images.
        width: filters of the first stage, doubled at each further one; 64 in the paper.
    """
    slow, fast, before = [], [], channels
    for stage in range(4):
        filters = width * 2**stage
        layers: list[nn.Module] = []
        if stage == 0:
            stem = nn.Conv2d(channels, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()
            layers += [*stem, nn.MaxPool2d(3, 2, padding=1)]
        stride = 1 if stage == 0 else 2
        layers += [BasicBlock(before if stage else filters, filters, stride), BasicBlock(filters, filters, 1)]
        slow.append(nn.Sequential(*layers))
        pool = nn.MaxPool2d(2, ceil_mode=True)  # rounds up, as the slow net's strides do: 84, 42, 21, 11, 6
        fast.append(_fast_convolution(before, filters, normed=True, pool=pool))
        before = filters
    tail = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Network(SlowFast(slow, fast, tail), nn.Linear(before, classes))


def dualnet(model: nn.Module, input_shape: Sequence[int]) -> Network:
    """Makes a slow/fast pair of an ordinary network, whose layers, shared and not copied, become the slow net.

    `model.features` is cut into stages, one for each layer with a weight matrix, consecutive ones with maps of the same
    shape together. Each stage gets a fast one: a 3 x 3 convolution, or a linear layer where the stage gives vectors,
    batch norm where the stage has it, else layer norm (without any, masks that multiply masks grow as powers of the
    input), ReLU, and the pooling that the shapes ask for. Layer norm starts with shift 1 and scale 0.1: masks near 1,
    so that the pair starts near the network. New weights come from the global generator.

    Args:
        model: a network `classifier(features(x))` whose `features` are an `nn.Sequential`: those of a study, for one.
        input_shape: of one sample, without the batch.

    Raises:
        TypeError: the network is not of this form.
    """
    features, classifier = getattr(model, "features", None), getattr(model, "classifier", None)
    if not isinstance(features, nn.Sequential) or not isinstance(classifier, nn.Module):
        raise TypeError(f"{_FORM}, which {type(model).__name__} is not")
    stages, tail = _stages(features)
    if not stages:
        raise TypeError(f"dualnet takes a network with hidden layers; the features of {type(model).__name__} have none")
    first = next(stages[0].parameters())
    x = torch.linspace(-1.0, 1.0, torch.Size(input_shape).numel()).view(1, *input_shape).to(first)
    with evaluation_mode(model), torch.no_grad():
        # both signs: one sample may leave every unit of a ReLU layer at 0, where all functions look alike
        _check_form(model, classifier, features, torch.cat([x, -x]))
        stages, shapes = _joined(stages, x)
    fast = [_fast_stage(stage, before, after) for stage, before, after in zip(stages, shapes, shapes[1:], strict=False)]
    pair = Network(SlowFast(stages, fast, tail), classifier).to(first.device)
    own = set(model.modules())
    for module in pair.modules():
        if module not in own:
            module.training = model.training
    return pair


_FORM = "dualnet takes a network classifier(features(x)) whose features are an nn.Sequential"
_RESHAPING = (nn.Flatten, nn.Unflatten, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


def _stages(features: nn.Sequential) -> tuple[list[nn.Sequential], nn.Sequential]:
    """Cuts before every layer with a weight matrix; what only reshapes or pools all goes with what follows it."""
    stages: list[list[nn.Module]] = []
    waiting: list[nn.Module] = []
    for module in features:
        if any(p.dim() > 1 for p in module.parameters()):
            stages.append([*waiting, module])
            waiting = []
        elif waiting or not stages or isinstance(module, _RESHAPING):
            waiting.append(module)
        else:
            stages[-1].append(module)
    return [nn.Sequential(*stage) for stage in stages], nn.Sequential(*waiting)


def _check_form(model: nn.Module, classifier: nn.Module, features: nn.Module, x: Tensor) -> None:
    try:
        same = torch.allclose(model(x), classifier(features(x)))
    except (RuntimeError, TypeError) as error:
        raise TypeError(f"{_FORM}; {type(model).__name__} on a sample of {tuple(x.shape[1:])}: {error}") from error
    if not same:
        raise TypeError(f"{_FORM}; {type(model).__name__} computes something else")


def _joined(stages: Sequence[nn.Sequential], x: Tensor) -> tuple[list[nn.Sequential], list[tuple[int, ...]]]:
    """Joins consecutive stages with maps of the same shape; also gives the samples' shapes, from the input's on."""
    joined: list[list[nn.Module]] = []
    shapes = [tuple(x.shape[1:])]
    for stage in stages:
        x = stage(x)
        shape = tuple(x.shape[1:])
        if joined and len(shape) == 3 and shape == shapes[-1]:
            joined[-1] += stage
        else:
            joined.append(list(stage))
            shapes.append(shape)
    return [nn.Sequential(*layers) for layers in joined], shapes


def _fast_stage(stage: nn.Module, before: tuple[int, ...], after: tuple[int, ...]) -> nn.Sequential:
    """One layer from samples of shape `before` to a mask of shape `after`."""
    normed = any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in stage.modules())
    if len(after) == 3 and len(before) == 3:
        pool = _pooling(before[1:], after[1:], _rounds_down(stage))
        return _fast_convolution(before[0], after[0], normed, pool)
    if len(after) != 1:
        raise TypeError(f"dualnet knows maps (C, H, W) and vectors (D,), but a stage goes from {before} to {after}")
    flatten = [nn.Flatten()] if len(before) > 1 else []
    norm = nn.BatchNorm1d(after[0]) if normed else _around_one(nn.LayerNorm(after[0]))
    return nn.Sequential(*flatten, nn.Linear(torch.Size(before).numel(), after[0]), norm, nn.ReLU())


def _fast_convolution(before: int, after: int, normed: bool, pool: nn.Module | None) -> nn.Sequential:
    norm = nn.BatchNorm2d(after) if normed else _around_one(nn.GroupNorm(1, after))
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), norm, nn.ReLU(), *([] if pool is None else [pool]))


def _around_one(norm: nn.LayerNorm | nn.GroupNorm) -> nn.Module:
    nn.init.ones_(norm.bias)
    nn.init.constant_(norm.weight, 0.1)
    return norm


def _rounds_down(stage: nn.Module) -> bool:
    """Whether odd sizes are halved downwards, as an unpadded pooling does; padded strides halve upwards."""
    pools = [module for module in stage.modules() if isinstance(module, nn.MaxPool2d | nn.AvgPool2d)]
    return any(not pool.ceil_mode and pool.padding == 0 for pool in pools)


def _pooling(before: tuple[int, ...], after: tuple[int, ...], rounds_down: bool) -> nn.Module | None:
    """The max pooling from maps of size `before` to `after`: the plain one where it fits, else one to that size."""
    if before == after:
        return None
    stride = round(before[0] / after[0])
    if stride > 1:
        pool = nn.MaxPool2d(stride, ceil_mode=not rounds_down)
        if tuple(pool(torch.zeros(1, 1, *before)).shape[2:]) == after:
            return pool
    return nn.AdaptiveMaxPool2d(after)
