"""ONLINE: requests answered on Ray Serve, one deployment a module; `app` joins them.

::

    HTTP ──▶ gateway ──▶ retriever (STAGE 1)
                └─ STAGE 2, in the gateway's process while it only passes through
"""

from deployments.app import build as app

__all__ = ["app"]
