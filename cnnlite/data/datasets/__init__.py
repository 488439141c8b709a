"""Datasets, one source a file."""
