"""TODO room divacli/ridge/labels."""
