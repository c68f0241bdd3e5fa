"""Losses, and the registry of those that a config may name."""

from cnn.losses.adversarial import AdversarialLoss, Hinge, LeastSquares, LipschitzPenalty, NonSaturating, Wasserstein
from cnn.losses.elbo import NegativeELBO, kl_divergence
from cnn.losses.standard import L1, L2, BCEWithLogits, CrossEntropy, Huber, Loss, minus_log_sigmoid

__all__ = [
    "L1",
    "L2",
    "LOSSES",
    "AdversarialLoss",
    "BCEWithLogits",
    "CrossEntropy",
    "Hinge",
    "Huber",
    "LeastSquares",
    "LipschitzPenalty",
    "Loss",
    "NegativeELBO",
    "NonSaturating",
    "Wasserstein",
    "kinds_taking",
    "kl_divergence",
    "minus_log_sigmoid",
]

LOSSES: dict[str, type[Loss]] = {
    loss.kind: loss
    for loss in (
        *(CrossEntropy, BCEWithLogits, L2, L1, Huber),
        *(NonSaturating, LeastSquares, Hinge, Wasserstein),
    )
}


def kinds_taking(*targets: str) -> str:
    """The names of the losses that take one of these targets, for a message."""
    return ", ".join(kind for kind, loss in LOSSES.items() if loss.targets in targets)
