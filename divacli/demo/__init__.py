"""The demonstration: real images made on the spot, a network trained on them, mislabelled samples to find."""
