"""Training: launching and resuming runs, the loop, evaluation, recording and progress."""
