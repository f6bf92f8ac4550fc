"""TODO room divacli/evaluation."""
