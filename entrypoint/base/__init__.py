"""What every other part may use: replacing files, the last words of an end, JSON of others, quick classes."""
