"""Networks linearised in more than their last layer: gradients as features."""
