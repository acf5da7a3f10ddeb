"""Carrying out a plan: spawn, gate, restart, stop, report.

`director` decides (pure), `daemon` acts (on supervisor's loop), `tree` knows process groups and
orphans, `probing` asks whether things are ready, `output` forwards logs.
"""
