"""Results for people: terminal, figures, page."""
