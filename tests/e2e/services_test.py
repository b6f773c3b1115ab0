"""Every server of a running cluster tells its health, describes itself and shows metrics, at the addresses
that it wrote down.
"""
import glob
import importlib.util
import os
import shutil
import subprocess
import sys
import urllib.request

if not all(importlib.util.find_spec(name) for name in ("grpc_health", "grpc_reflection")):
    print("SKIPPED: no grpcio-health-checking and grpcio-reflection in .venv; run scripts/setup.sh --test")
    sys.exit(0)

import grpc  # noqa: E402
from google.protobuf.descriptor_pool import DescriptorPool  # noqa: E402
from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: E402
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (  # noqa: E402
    ProtoReflectionDescriptorDatabase)

from cluster import Cluster, end, say, workplace  # noqa: E402

# Service -> what it offers and an rpc of it.
SERVERS = {"coordinator": {"Experiments": "CreateExperiment", "Work": "Sync"},
           "worker-0": {"Generation": "Generate"}, "capture": {"ActivationCapture": "Record"},
           "quantsim": {"QuantizationSimulation": "Simulate"}, "judge": {"RefusalJudge": "Judge"},
           "pcr": {"PcrClassifier": "Classify"}}


def check_health(channel, services):
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", *(f"plumbline.v1.{name}" for name in services)):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, service
    try:
        stub.Check(health_pb2.HealthCheckRequest(service="plumbline.v1.Nothing"), timeout=20)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
    else:
        raise AssertionError("a service that is not there is healthy")


def check_reflection(channel, services):
    database = ProtoReflectionDescriptorDatabase(channel)
    names = set(database.get_services())
    own = {f"plumbline.v1.{name}" for name in services}
    assert own == {name for name in names if name.startswith("plumbline.")}, names
    assert "grpc.health.v1.Health" in names, names
    pool = DescriptorPool(database)
    for name, method in services.items():
        described = pool.FindServiceByName(f"plumbline.v1.{name}").FindMethodByName(method)
        assert described.input_type.fields, f"{name}.{method} has a request without fields"


def check_metrics(name, port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        page = answer.read()
    assert b"plumb_build_info{" in page and b"\nplumb_serving 1" in page, page[:2000]
    if shutil.which("promtool") is None:
        return "SKIPPED: no promtool (Debian package prometheus)"
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, timeout=60,
                             check=False)
    assert checked.returncode == 0 and not checked.stdout + checked.stderr, (name, checked)
    return "promtool finds nothing"


def main():
    with workplace() as folder:
        cluster = Cluster(os.path.join(folder, "data"), os.path.join(folder, "models"), workers=1)
        try:
            found = {os.path.basename(path).removesuffix(".ports")
                     for path in glob.glob(f"{cluster.data}/run/*.ports")}
            assert found == set(SERVERS), found ^ set(SERVERS)
            for name, services in SERVERS.items():
                ports = cluster.ports(name)
                with grpc.insecure_channel(f"127.0.0.1:{ports['grpc']}") as channel:
                    check_health(channel, services)
                    check_reflection(channel, services)
                said = check_metrics(name, ports["metrics"])
                say(f"{name}: healthy, describes {', '.join(services)}; metrics: {said}")
        finally:
            end(cluster.process)


if __name__ == "__main__":
    main()
