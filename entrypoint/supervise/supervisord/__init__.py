"""What is built on the `supervisor` package."""
