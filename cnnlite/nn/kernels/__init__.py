"""Stateless array functions: the arithmetic of the layers, on blocks of samples."""
