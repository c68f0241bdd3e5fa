"""What the server of tests/forks.py imports last."""

from tools.small_runs import warm_up

warm_up()
