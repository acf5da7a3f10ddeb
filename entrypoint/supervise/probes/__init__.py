"""Whether a process is ready: the questions, and who asks them."""
