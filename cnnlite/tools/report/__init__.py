"""Reports: a page about a run, comparisons of runs, and findings. The only package that imports matplotlib."""
