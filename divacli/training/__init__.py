"""A network and the weights of its samples, trained together."""
