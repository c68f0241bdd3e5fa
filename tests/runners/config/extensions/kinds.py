"""A loss, an optimizer, a schedule and data of one's own."""

from __future__ import annotations

from torch import Tensor

from cnn.losses import CrossEntropy
from cnn.optimizers import Optimizer
from cnn.schedules import Constant
from runners.data.sources.idx import Mnist


class HalfEntropy(CrossEntropy):
    """Cross entropy without arguments."""

    kind = "half_entropy"

    def __init__(self) -> None:
        super().__init__()


class SignDescent(Optimizer):
    """p <- p - lr * sign(g)."""

    kind = "sign_descent"

    def __init__(self, lr: float = 0.001) -> None:
        super().__init__(lr, 0.0, False, {})

    def move(self, data: Tensor, gradient: Tensor, *factors: Tensor) -> None:
        (lr,) = factors
        data.sub_(gradient.sign() * lr)


class Halves(Constant):
    """Half of the rate."""

    kind = "halves"

    def __init__(self) -> None:
        super().__init__()

    def at(self, lr: float, elapsed: int, total: float) -> float:
        return lr / 2


class FewDigits(Mnist):
    """MNIST, of which 200 examples are for training."""

    kind = "few_digits"

    def __init__(self) -> None:
        super().__init__(num_examples=200, val_examples=50)
