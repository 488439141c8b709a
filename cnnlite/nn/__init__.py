"""Layers, the kernels below them, losses, and the network that layers make up."""
