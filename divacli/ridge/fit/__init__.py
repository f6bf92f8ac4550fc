"""The weighted ridge problem, one pass over its samples, and its solution."""
