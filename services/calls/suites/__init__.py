"""Tests of agents: what to say and what must hold, in YAML; run in parallel, with a report.

Light to import; reading a suite loads YAML and pydantic, so it belongs into a thread.
"""
