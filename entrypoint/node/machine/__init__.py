"""What this machine has for an engine: GPUs, network adapters, limits, how fast the model is read."""
