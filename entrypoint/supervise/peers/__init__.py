"""Runners of other nodes whose fate this one shares."""
