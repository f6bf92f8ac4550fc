"""TODO room divacli/ridge/pool."""
