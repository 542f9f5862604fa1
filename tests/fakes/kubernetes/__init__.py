"""A strict fake of the Kubernetes API server on a loopback port, for the real client.

Own code and not `kmock` (0.8): that one stores and watches objects, but knows no resource versions, 410, bookmarks,
selectors, conflicts or validation, which are what is strict here. Start reading at `server.py`; judgement: `schema`,
`names`, `selectors`, `patches`; words: `problems`; what is remembered: `store`.
"""

from tests.fakes.kubernetes.server import KubernetesServer

__all__ = ["KubernetesServer"]
