"""The commands from Python."""
