"""Which labels are wrong, and what several votes say."""
