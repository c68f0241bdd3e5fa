"""What people run and isn't the product: `python -m tools.faults` and `python -m tools.photos RUN`."""
