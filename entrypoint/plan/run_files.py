"""Names below GLM47_RUN_DIR that one part writes and another one reads."""

STACK_HOOK = "hook"
"""Where an engine's processes say that they can be asked where they stand, and answer."""
