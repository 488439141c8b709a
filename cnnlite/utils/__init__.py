"""Utilities that know nothing of networks: text, files, signals, registries, random streams."""
