"""Which samples are alike."""
