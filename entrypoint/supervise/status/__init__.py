"""What the outside is told: the health endpoint, the status, a job's files."""
