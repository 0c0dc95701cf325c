"""Parts that Kubernetes resources share."""

from __future__ import annotations

from tests.unit.inference.constraints.real_schemas.building import FLAG, LABEL, Schema, many, num, obj, one_of, text

_NUMBER = r"(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
META = obj(
    name=LABEL,
    namespace=LABEL,
    labels={"type": "object", "additionalProperties": text(maxLength=63)},
    annotations={"type": "object", "additionalProperties": text()},
)
QUANTITY = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "x-kubernetes-int-or-string": True,
    "pattern": rf"^(\+|-)?{_NUMBER}(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?{_NUMBER}))?$",
}
SELECTOR = obj(
    matchLabels={"type": "object", "additionalProperties": text()},
    matchExpressions=many(
        obj("key operator", key=text(), operator=text(), values=many(text(), **{"x-kubernetes-list-type": "atomic"}))
    ),
)
CONDITION = obj(
    "lastTransitionTime message reason status type",
    lastTransitionTime=text(format="date-time"),
    message=text(maxLength=32768),
    observedGeneration=num(format="int64", minimum=0),
    reason=text(maxLength=1024, minLength=1, pattern="^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"),
    status=one_of("True", "False", "Unknown"),
    type=text(
        maxLength=316,
        pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
    ),
)
ENV = obj(
    "name",
    name=text(),
    value=text(),
    valueFrom=obj(
        secretKeyRef=obj("key", key=text(), name=text(default=""), optional=FLAG) | {"x-kubernetes-map-type": "atomic"}
    ),
)
PORT = obj(
    "containerPort",
    containerPort=num(format="int32", minimum=1, maximum=65535),
    name=text(maxLength=15),
    protocol=one_of("TCP", "UDP", "SCTP", default="TCP"),
)
PROBE = obj(
    httpGet=obj(
        "port", path=text(), port={"x-kubernetes-int-or-string": True, "anyOf": [num(), text()]}, scheme=text()
    ),
    exec=obj(command=many(text())),
    initialDelaySeconds=num(format="int32"),
    periodSeconds=num(format="int32"),
    failureThreshold=num(format="int32"),
)
RESOURCES = obj(
    limits={"type": "object", "additionalProperties": QUANTITY},
    requests={"type": "object", "additionalProperties": QUANTITY},
)
CONTAINER = obj(
    "name image",
    name=text(),
    image=text(),
    command=many(text()),
    args=many(text()),
    env=many(ENV),
    ports=many(PORT),
    resources=RESOURCES,
    livenessProbe=PROBE,
    readinessProbe=PROBE,
    startupProbe=PROBE,
    imagePullPolicy=one_of("Always", "Never", "IfNotPresent"),
    volumeMounts=many(obj("name mountPath", name=text(), mountPath=text(), readOnly=FLAG, subPath=text())),
    securityContext=obj(
        runAsUser=num(format="int64"),
        runAsNonRoot=FLAG,
        privileged=FLAG,
        capabilities=obj(add=many(text()), drop=many(text())),
    ),
)
POD = obj(
    "containers",
    containers=many(CONTAINER, minItems=1),
    initContainers=many(CONTAINER),
    restartPolicy=text(),
    serviceAccountName=text(),
    nodeSelector={"type": "object", "additionalProperties": text()},
    terminationGracePeriodSeconds=num(format="int64"),
    tolerations=many(
        obj(key=text(), operator=text(), value=text(), effect=text(), tolerationSeconds=num(format="int64"))
    ),
    volumes=many(
        obj(
            "name",
            name=text(),
            emptyDir=obj(medium=text(), sizeLimit=QUANTITY),
            configMap=obj(name=text(), optional=FLAG),
        )
    ),
)


def resource(kind: str, spec: Schema, status: Schema | None = None) -> Schema:
    """A custom resource's openAPIV3Schema."""
    properties = {
        "apiVersion": text(description="APIVersion defines the versioned schema."),
        "kind": text(),
        "metadata": META,
        "spec": spec,
    }
    return {
        "type": "object",
        "description": kind,
        "required": ["spec"],
        "properties": properties | ({"status": status} if status else {}),
    }
