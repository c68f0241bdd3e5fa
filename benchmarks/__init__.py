"""Commands that measure speed: ratios to PyTorch, within one run."""
