"""Carrying out a plan: spawn, gate, restart, stop, report.

`lifecycle` decides (pure), `daemon` is the loop, `executor` acts, `process_tree` knows process groups and
orphans, `probes` asks whether things are ready, `watchdog` watches engines, `output` forwards logs,
`log_monitor` and `failures` read them, `peers` are other nodes' runners, `discovery` the lists of workers,
`status` is what the outside is told.
"""
