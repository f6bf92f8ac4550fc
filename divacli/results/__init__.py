"""TODO room divacli/results."""
