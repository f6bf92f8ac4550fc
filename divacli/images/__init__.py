"""Image files: what they are, how they are decoded, and which values of theirs are black and white."""
