"""The implicit basis of gradients by linear layers: a logit's gradient is rank one in each layer, so keep the factors.

With `a_n` a layer's input (in,) and `d_n` the gradient of an output of sample n by the layer's output (out,), the
gradient by the weight is `d_n a_n^T` and by the bias `d_n`. So

    V^T x = sum_layers d_n^T (X a_n + x_bias),     V^T V = sum_layers (A A^T + 1) o (D D^T)

and nothing of the size of the parameters is stored. The 1 stands for a bias.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from cl_ext.nn.orthogonal import TOLERANCE, FlatVector
from cl_ext.nn.parameters import grow

import torch
from torch import Tensor


class Factors(NamedTuple):
    """The rank-one gradients of one linear layer: row n is `d_n a_n^T` by the weight and `d_n` by the bias.

    Attributes:
        a: inputs (m, in); (m, 0) where the weight is frozen.
        d: gradients by the output (m, out).
    """

    a: Tensor
    d: Tensor


def split_name(name: str) -> tuple[str, str]:
    """Returns the layer's and the local part of a parameter's name."""
    layer, _, local = name.rpartition(".")
    return layer, local


class ImplicitBasis:
    """The factors of directions that are rank one in each linear layer, and the Cholesky factor of their Gram matrix.

    Directions are stored with length one.

    Attributes:
        factors: layer name -> its factors.
        cholesky: L with `V^T V = L L^T`, (m, m), float64.
    """

    kind = "implicit"

    def __init__(self, tolerance: float = TOLERANCE) -> None:
        self.tolerance = tolerance
        self.factors: dict[str, Factors] = {}
        self.cholesky = torch.zeros(0, 0, dtype=torch.float64)
        self._names: list[str] = []

    @property
    def size(self) -> int:
        """The number m of directions."""
        return len(self.cholesky)

    @staticmethod
    def bytes_for(count: int, parameters: Mapping[str, Tensor]) -> int:
        """Returns the memory of `count` directions, in bytes."""
        width = {(split_name(n)[0], axis): p.shape[axis] * p.element_size()
                 for n, p in parameters.items() for axis in range(p.dim())}  # fmt: skip
        return count * sum(width.values()) + 8 * count**2

    def bytes(self) -> int:
        """Returns the memory held, in bytes."""
        return self.cholesky.nbytes + sum(f.a.nbytes + f.d.nbytes for f in self.factors.values())

    @torch.no_grad()
    def align(self, parameters: Mapping[str, Tensor]) -> None:
        """Fits the factors to `parameters`: new entries are zeros; those of parameters that are gone are forgotten.

        Raises:
            ValueError: if a layer shrank.
        """
        layers: dict[str, dict[str, Tensor]] = {}
        for name, p in parameters.items():
            layer, local = split_name(name)
            layers.setdefault(layer, {})[local] = p
        factors = {}
        for layer, own in layers.items():
            like = next(iter(own.values()))
            a = like.new_zeros(self.size, own["weight"].shape[1] if "weight" in own else 0)
            d = like.new_zeros(self.size, len(like))
            if layer in self.factors:
                old = self.factors[layer]
                a, d = grow(old.a, a, "zeros") if "weight" in own else a, grow(old.d, d, "zeros")
            factors[layer] = Factors(a, d)
        gone = set(self._names) - parameters.keys()
        self.factors, self._names = factors, list(parameters)
        self.cholesky = self.cholesky.to(next(iter(parameters.values())).device)
        if gone and self.size:
            room = self.size
            self.factors = {layer: Factors(f.a[:0], f.d[:0]) for layer, f in factors.items()}
            self.cholesky = self.cholesky[:0, :0]
            self.extend(factors, room)

    def _with_bias(self, layer: str) -> float:
        return 1.0 if f"{layer}.bias".lstrip(".") in self._names else 0.0

    def gram(self, left: Mapping[str, Factors], right: Mapping[str, Factors]) -> Tensor:
        """Returns `sum_layers (A A'^T + 1) o (D D'^T)`, (m, m') float64; the 1 stands for a bias."""
        total: Tensor | float = 0.0
        for layer, (a, d) in left.items():
            other = right[layer]
            inner = a.double() @ other.a.double().t() + self._with_bias(layer)
            total = total + inner * (d.double() @ other.d.double().t())
        assert isinstance(total, Tensor)
        return total

    @torch.no_grad()
    def extend(self, new: Mapping[str, Factors], room: int) -> int:
        """Adds the directions that are new among some gradients.

        Args:
            new: layer name -> factors of R gradients, of the aligned layers.
            room: how many directions to add at most.

        Returns:
            How many were added.
        """
        lengths = torch.stack([((f.a.double().square().sum(1) + self._with_bias(layer))
                                * f.d.double().square().sum(1)) for layer, f in new.items()]).sum(0).sqrt()  # fmt: skip
        scale = torch.where(lengths > 0, 1.0 / lengths, 0.0)
        new = {layer: Factors(f.a, (f.d.double() * scale[:, None]).to(f.d)) for layer, f in new.items()}
        cross = self.gram(self.factors, new)
        w = torch.linalg.solve_triangular(self.cholesky, cross, upper=False)  # L^-1 V^T V_new, (m, R)
        kept, lower = _cholesky_dropping(self.gram(new, new) - w.t() @ w, room, self.tolerance)
        m, count = self.size, len(kept)
        grown = lower.new_zeros(m + count, m + count)
        grown[:m, :m], grown[m:, :m], grown[m:, m:] = self.cholesky, w[:, kept].t(), lower
        self.cholesky = grown
        self.factors = {
            layer: Factors(torch.cat([f.a, new[layer].a[kept]]), torch.cat([f.d, new[layer].d[kept]]))
            for layer, f in self.factors.items()
        }
        return count

    @torch.no_grad()
    def project_(self, x: FlatVector) -> None:
        """Takes the part in the span of the directions out of `x`, in place."""
        for _ in range(2):
            y = torch.stack([self._overlap(layer, f, x) for layer, f in self.factors.items()]).sum(0)
            c = torch.cholesky_solve(y.double().unsqueeze(1), self.cholesky).to(y)
            for layer, (a, d) in self.factors.items():
                weight, bias = self._views(layer, x)
                if weight is not None:
                    weight.addmm_((d * c).t(), a, alpha=-1.0)
                if bias is not None:
                    bias.addmv_(d.t(), c.squeeze(1), alpha=-1.0)

    def _views(self, layer: str, x: FlatVector) -> tuple[Tensor | None, Tensor | None]:
        prefix = f"{layer}." if layer else ""
        return x.named.get(f"{prefix}weight"), x.named.get(f"{prefix}bias")

    def _overlap(self, layer: str, f: Factors, x: FlatVector) -> Tensor:
        """Returns the layer's part of `V^T x`, (m,): `d_n^T (W a_n + b)`."""
        weight, bias = self._views(layer, x)
        if weight is None:
            assert bias is not None
            return f.d.mv(bias)
        output = f.a @ weight.t() if bias is None else torch.addmm(bias, f.a, weight.t())
        return (output * f.d).sum(1)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as tensors and JSON values."""
        factors = {layer: {"a": f.a.clone(), "d": f.d.clone()} for layer, f in self.factors.items()}
        return {"factors": factors, "cholesky": self.cholesky.clone(), "names": list(self._names)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores it; `align` has to follow."""
        self.factors = {layer: Factors(f["a"].clone(), f["d"].clone()) for layer, f in state["factors"].items()}
        self.cholesky, self._names = state["cholesky"].clone(), list(state["names"])


def _cholesky_dropping(gram: Tensor, room: int, tolerance: float) -> tuple[Tensor, Tensor]:
    """Returns which rows of a Gram matrix of unit vectors to keep, in order, and the Cholesky factor of those.

    A row is dropped where its pivot, the squared part of the vector outside the span of the kept ones before it, is
    below the squared tolerance; the diagonal may have lost its ones to directions known already.
    """
    rows = len(gram)
    lower, failed = torch.linalg.cholesky_ex(gram)
    if rows <= room and not failed and bool((lower.diagonal() > tolerance).all()):
        return torch.arange(rows, device=gram.device), lower
    kept: list[int] = []
    lower = torch.zeros(min(rows, room), min(rows, room), dtype=gram.dtype, device=gram.device)
    for row in range(rows):
        count = len(kept)
        if count == room:
            break
        known = gram[kept, row].unsqueeze(1)
        part = torch.linalg.solve_triangular(lower[:count, :count], known, upper=False).squeeze(1)
        pivot = gram[row, row] - part @ part
        if pivot > tolerance**2:
            lower[count, :count], lower[count, count] = part, pivot.sqrt()
            kept.append(row)
    return torch.tensor(kept, dtype=torch.long, device=gram.device), lower[: len(kept), : len(kept)]
