"""The children's output: forwarded without ever blocking the loop, and read for progress."""
