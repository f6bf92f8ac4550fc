"""Results for people: what the terminal shows."""
