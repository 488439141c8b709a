"""YAML to checked, typed settings: `load` has files read by `yaml_reader`, and their data checked by `construct`."""
