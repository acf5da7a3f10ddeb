"""Start, fate, restart and stop as decisions: no effects."""
