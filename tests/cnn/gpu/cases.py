"""What each Triton kernel is tried on."""

from tests.cnn.gpu import layer_cases, step_cases  # noqa: F401  they add their cases
from tests.cnn.gpu.trying import CASES

__all__ = ["CASES"]
