"""A cluster as an engine: every training is a batch/v1 Job, or a Kubeflow TrainJob where it takes several nodes.

Pure: `forms` (what differs), `manifest` and `trainjob` (spec → either), `runtimes` (where TrainJobs run), `reading` and
`waiting` (raw objects, pods, warnings → Observation). Outside: `connection` (requests, and errors in words),
`reflector` (one stream a kind), `logs`, `preflight`, and `engine`, the port.
"""
