"""`diagnose`: the first cause of a failed deployment, from its logs or from its runners."""
