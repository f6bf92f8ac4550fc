"""TODO room divacli/review."""
