"""`check`: what would keep `run` from working, here or on any node of a Slurm job."""
