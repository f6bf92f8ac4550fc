"""TODO room divacli/ridge/similar."""
