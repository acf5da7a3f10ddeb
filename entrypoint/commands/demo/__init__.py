"""`demo`: the stack on this machine, with a made-up model."""
