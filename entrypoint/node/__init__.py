"""Where this container stands and what is here: the only readers of Slurm, the network and the image."""
