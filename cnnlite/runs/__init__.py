"""Run directories: checkpoints, figures, and going back to the network that they hold."""
