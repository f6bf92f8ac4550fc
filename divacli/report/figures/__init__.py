"""TODO room divacli/report/figures."""
