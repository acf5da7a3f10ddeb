"""Why a process ended, read from its log: lines, exceptions, and the failures that are known."""
