"""Better weights of the samples."""
