"""YAML to checked, typed settings."""
