"""TODO room divacli/backbones/linearised."""
