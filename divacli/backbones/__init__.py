"""A model name, a user's factory or a checkpoint -> a feature extractor with its own transform."""
