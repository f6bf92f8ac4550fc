"""TODO room divacli/files."""
