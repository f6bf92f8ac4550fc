"""TODO room divacli/machine."""
