"""`status --watch`: the deployment in a terminal, kept up to date."""
