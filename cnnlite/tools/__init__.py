"""Commands other than training: looking at networks, runs and machines."""
