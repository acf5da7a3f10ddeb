"""Every setting: its type and meaning, the layers it comes from, and how it is described."""
