"""The tables of `plan --explain`."""
