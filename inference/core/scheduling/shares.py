"""What each tenant was served, so that the one that was served least goes next.

Start-time fair queueing (Goyal, Vin and Chen, SIGCOMM 1996) between tenants, with what they were served for tags: a
tenant that comes starts where the least served of those that are there stands, and where none is, at the most that
anyone was served. So nobody saves up a claim by being away, and nobody owes for what was used while nobody else
wanted it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

# Tenants that are not there are remembered up to this many, the latest served ones.
KEPT_TENANTS = 4096


class TenantShares:
    """Served seconds by tenant."""

    def __init__(self) -> None:
        self._served: OrderedDict[str, float] = OrderedDict()
        self._most = 0.0

    def enter(self, tenant: str, there: Collection[str]) -> None:
        """Let `tenant` take part beside those that are `there`, itself perhaps among them."""
        if tenant in there and tenant in self._served:
            return
        start = min((self._served[other] for other in there if other in self._served), default=self._most)
        self._served[tenant] = max(self._served.get(tenant, start), start)
        self._served.move_to_end(tenant)
        if len(self._served) > KEPT_TENANTS + len(there):
            away = [name for name in self._served if name not in there and name != tenant]
            for name in away[: len(self._served) - KEPT_TENANTS]:
                del self._served[name]

    def of(self, tenant: str) -> float:
        """What `tenant`, which has entered, stands at."""
        return self._served[tenant]

    def charge(self, tenant: str, seconds: float) -> None:
        """Book service on a tenant that has entered."""
        self._served[tenant] += seconds
        self._most = max(self._most, self._served[tenant])
