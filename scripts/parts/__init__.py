"""What the scripts share, and what they start; nothing to be run by hand."""
