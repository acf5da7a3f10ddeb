"""Roles to processes: one module per kind of process, all pure."""
