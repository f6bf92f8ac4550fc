"""What each command computes and decides: score, prune, relabel, reweight, extend, augment, votes ..."""
