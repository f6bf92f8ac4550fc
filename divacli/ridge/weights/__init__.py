"""TODO room divacli/ridge/weights."""
