"""Leave-one-out residuals, losses, the ridge that they choose, and their derivative in sample weights."""
