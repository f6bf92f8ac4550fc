"""Decisions from derivatives: score, prune, and the check of a result against true refits."""
