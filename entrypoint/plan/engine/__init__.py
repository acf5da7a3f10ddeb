"""What the engine's releases can and cannot do. Pure."""
