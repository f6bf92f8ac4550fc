"""Coverage-guided fuzzing of everything that reads a file: `python -m fuzz`, or `make fuzz`."""
