"""TODO room divacli/solve."""
