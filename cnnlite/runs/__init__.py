"""Run directories: checkpoints, metrics and results, and the networks restored from them."""
