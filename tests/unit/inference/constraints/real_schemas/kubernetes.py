"""Kubernetes resources and custom ones, as their definitions hold them."""

from __future__ import annotations

from tests.unit.inference.constraints.real_schemas.building import FLAG, Schema, many, num, obj, one_of, text
from tests.unit.inference.constraints.real_schemas.kubernetes_parts import (
    CONDITION,
    META,
    POD,
    QUANTITY,
    RESOURCES,
    SELECTOR,
    resource,
)

KUBERNETES: dict[str, Schema] = {
    "deployment": resource(
        "Deployment",
        obj(
            "selector template",
            replicas=num(format="int32", minimum=0),
            selector=SELECTOR,
            strategy=obj(
                type=one_of("Recreate", "RollingUpdate"), rollingUpdate=obj(maxSurge=QUANTITY, maxUnavailable=QUANTITY)
            ),
            template=obj("spec", metadata=META, spec=POD),
        ),
    ),
    "cronjob": resource(
        "CronJob",
        obj(
            "schedule jobTemplate",
            schedule=text(pattern=r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$"),
            suspend=FLAG,
            concurrencyPolicy=one_of("Allow", "Forbid", "Replace"),
            jobTemplate=obj(spec=obj(template=obj(spec=POD))),
        ),
    ),
    "service": resource(
        "Service",
        obj(
            type=one_of("ClusterIP", "NodePort", "LoadBalancer"),
            selector={"type": "object", "additionalProperties": text()},
            ports=many(
                obj(
                    "port",
                    port=num(minimum=1, maximum=65535),
                    targetPort={"anyOf": [num(), text()]},
                    nodePort=num(minimum=30000, maximum=32767),
                ),
                minItems=1,
            ),
        ),
    ),
    "certificate": resource(
        "Certificate",
        obj(
            "secretName issuerRef",
            secretName=text(),
            dnsNames=many(text()),
            duration=text(),
            isCA=FLAG,
            issuerRef=obj("name", name=text(), kind=text(), group=text()),
            privateKey=obj(
                algorithm=one_of("RSA", "ECDSA", "Ed25519"), size=num(), rotationPolicy=one_of("Never", "Always")
            ),
            usages=many(one_of("signing", "digital signature", "server auth", "client auth")),
        ),
        obj(conditions=many(CONDITION)),
    ),
    "gateway_route": resource(
        "HTTPRoute",
        obj(
            hostnames=many(
                text(
                    maxLength=253,
                    minLength=1,
                    pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
                ),
                maxItems=16,
            ),
            rules=many(
                obj(
                    matches=many(
                        obj(
                            path=obj(
                                type=one_of("Exact", "PathPrefix", "RegularExpression"), value=text(maxLength=1024)
                            )
                        ),
                        maxItems=8,
                    ),
                    backendRefs=many(
                        obj(
                            "name",
                            name=text(maxLength=253, minLength=1),
                            port=num(format="int32", minimum=1, maximum=65535),
                            weight=num(minimum=0, maximum=1000000),
                        ),
                        maxItems=16,
                    ),
                ),
                maxItems=16,
            ),
        ),
        obj(conditions=many(CONDITION, maxItems=8)),
    ),
    "autoscaler": resource(
        "HorizontalPodAutoscaler",
        obj(
            "maxReplicas scaleTargetRef",
            minReplicas=num(minimum=1),
            maxReplicas=num(minimum=1),
            scaleTargetRef=obj("kind name", apiVersion=text(), kind=text(), name=text()),
            metrics=many(
                obj(
                    "type",
                    type=one_of("Resource", "Pods"),
                    resource=obj("name", name=text(), target=obj(averageUtilization=num(minimum=1, maximum=100))),
                )
            ),
        ),
    ),
    "network_policy": resource(
        "NetworkPolicy",
        obj(
            podSelector=SELECTOR,
            policyTypes=many(one_of("Ingress", "Egress")),
            ingress=many(
                obj(
                    **{
                        "from": many(
                            obj(ipBlock=obj("cidr", cidr=text(), **{"except": many(text())}), podSelector=SELECTOR)
                        ),
                        "ports": many(obj(port=QUANTITY, protocol=text())),
                    }
                )
            ),
        ),
    ),
    "configmap": obj(
        data={"type": "object", "additionalProperties": text()},
        binaryData={"type": "object", "additionalProperties": text(format="byte")},
        immutable=FLAG,
    ),
    "validated": resource(
        "Widget",
        obj(size=num(minimum=1, maximum=10))
        | {"x-kubernetes-validations": [{"rule": "self.size < 10", "message": "too large"}]},
    ),
    "preserving": resource("Values", {"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
    "prometheus_rule": resource(
        "PrometheusRule",
        obj(
            groups=many(
                obj(
                    "name",
                    name=text(minLength=1),
                    interval=text(
                        pattern=r"^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$"
                    ),
                    rules=many(
                        obj(
                            "expr",
                            alert=text(),
                            expr={"anyOf": [num(), text()], "x-kubernetes-int-or-string": True},
                            labels={"type": "object", "additionalProperties": text()},
                        )
                    ),
                ),
                **{"x-kubernetes-list-map-keys": ["name"], "x-kubernetes-list-type": "map"},
            )
        ),
    ),
    "storage": resource(
        "Volume",
        obj(
            accessModes=many(one_of("ReadWriteOnce", "ReadOnlyMany")),
            resources=RESOURCES,
            volumeMode=text(),
            storageClassName=text(),
        ),
    ),
    "one_of_source": resource(
        "Source",
        obj(
            git=obj("url", url=text(pattern="^(http|https|ssh)://.*$"), ref=obj(branch=text(), tag=text())),
            helm=obj("chart", chart=text()),
        )
        | {"oneOf": [{"required": ["git"]}, {"required": ["helm"]}]},
    ),
    "not_allowed": resource("Policy", obj(a=text(), b=text()) | {"not": {"required": ["a", "b"]}}),
}
