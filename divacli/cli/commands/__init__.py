"""TODO room divacli/cli/commands."""
