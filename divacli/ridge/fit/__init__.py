"""TODO room divacli/ridge/fit."""
