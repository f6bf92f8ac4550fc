"""TODO room divacli/ridge/leave_out."""
