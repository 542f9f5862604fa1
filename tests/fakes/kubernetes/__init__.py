"""A strict fake of the Kubernetes API server on a loopback port, for the real client.

Own code and not `kmock` (0.8): that one stores and watches objects, but knows no resource versions, 410, bookmarks,
selectors, conflicts or validation, which are what is strict here. `KubernetesServer` is the API alone, `Cluster` is it
with controllers behind. Start reading at `server.py`; judgement: `schema`, `names`, `jobs`, `selectors`, `patches`;
words: `problems`; what is remembered: `store`; streams: `watches`; what lives behind: `cluster`.
"""

from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.server import KubernetesServer

__all__ = ["Cluster", "KubernetesServer"]
