"""`topology`: who would be where."""
