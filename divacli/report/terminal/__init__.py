"""TODO room divacli/report/terminal."""
