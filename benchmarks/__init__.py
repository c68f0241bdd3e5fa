"""Speed, as commands: ratios measured in one run, against PyTorch as the peer."""
