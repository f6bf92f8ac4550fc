"""TODO room divacli/training."""
