"""Results in the terminal: one module a command, and the tables that they share."""
