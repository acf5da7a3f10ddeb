"""Plan to exit code: the plan is made aside, supervised to its end, and the end is told."""
