"""Doors to other tools: what they read is written for them, and what people decided there is read back."""
