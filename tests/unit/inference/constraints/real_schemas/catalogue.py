"""Schemas of the kinds that published OpenAPI documents, Kubernetes resources and catalogues of tools hold.

Written for these tests from knowledge of the formats: their idioms, annotations and sizes, not their words.
"""

from __future__ import annotations

from tests.unit.inference.constraints.real_schemas.building import Schema
from tests.unit.inference.constraints.real_schemas.kubernetes import KUBERNETES
from tests.unit.inference.constraints.real_schemas.large import LARGE
from tests.unit.inference.constraints.real_schemas.openapi import OPENAPI
from tests.unit.inference.constraints.real_schemas.tools import TOOLS

SETS = {"openapi": OPENAPI, "kubernetes": KUBERNETES, "tools": TOOLS, "large": LARGE}
ALL: dict[str, Schema] = {f"{group}/{name}": each[name] for group, each in SETS.items() for name in each}
