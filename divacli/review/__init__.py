"""What people decided about samples, and carrying it out."""
