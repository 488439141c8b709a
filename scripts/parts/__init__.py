"""Modules shared or started by the scripts, not to be run by hand."""
