"""The installed release's own argument parser, asked before a rank is started (docs/decisions/parser.md)."""
