"""Tools beside training: summaries, checks, benchmarks, predictions, reports and export."""
