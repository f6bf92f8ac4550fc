"""From samples to a posed and factorised problem: groups, overlap, duplicates, losses, the ridge."""
