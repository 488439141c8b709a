"""Blocks of work on threads, communication among ranks, and the machine below."""
