"""A cluster as an engine: every training is a batch/v1 Job.

Pure: `manifest` (spec → Job), `reading` and `waiting` (raw Job, pods, warnings → Observation). Outside: `connection`
(requests, and errors in words), `reflector` (one stream a kind), `logs`, `preflight`, and `engine`, the port.
"""
