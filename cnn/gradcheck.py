"""`from cnn.gradcheck import gradcheck`: any layer or network against finite differences."""

from cnn.gradients.finite_differences import gradcheck

__all__ = ["gradcheck"]
