"""A scripted night: faults put into real stacks, and when the runner names their cause (docs/night.md)."""
