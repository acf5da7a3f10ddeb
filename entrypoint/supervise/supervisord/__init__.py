"""The control socket for `supervisorctl`: the one place that the `supervisor` package is used in."""
