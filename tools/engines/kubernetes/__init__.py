"""A cluster as an engine: every training is a batch/v1 Job.

Pure: `manifest` (spec → Job) and `reading` (raw Job, pods, events → Observation). Outside: `connection` (requests, and
errors in words), `reflector` (one stream a kind), `engine` (the port).
"""

from tools.engines.kubernetes.engine import KubernetesEngine
from tools.engines.kubernetes.manifest import ClusterSettings

__all__ = ["ClusterSettings", "KubernetesEngine"]
