"""`bench`: AIPerf against a running deployment, and reports that can be compared.

`suite` says what to measure, `server` looks at the deployment, `aiperf` drives the load generator, `results`
reads what it wrote, `session` runs a suite from end to end, `report`, `markdown` and `plots` show it,
`comparison` puts two reports side by side.
"""
