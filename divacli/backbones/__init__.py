"""A model name, a user's factory or a checkpoint -> a feature extractor with its own transform."""

HEAD_ASIDE = "head: "
"""How the sentence begins that says what was put aside of a network's head."""
