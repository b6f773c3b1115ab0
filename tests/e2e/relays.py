"""Relays between the services: a cluster whose services reach each other only through this test.

A Relay passes every call on as bytes, whatever its method, health checks and streams included, and
counts the messages. A Change alters the messages of one method that it recognises.
"""
import collections
import contextlib
import importlib
import os
import signal
import subprocess
import sys
import threading
from concurrent import futures

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # services start while relays run
import grpc  # noqa: E402
import grpc_tools  # noqa: E402
from google.protobuf import text_format  # noqa: E402
from grpc_tools import protoc  # noqa: E402

from cluster import BIN, ROOT, Cluster, await_true, end  # noqa: E402

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
# A service that comes back is found within a second.
QUICK = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.min_reconnect_backoff_ms", 100),
         ("grpc.max_reconnect_backoff_ms", 500), ("grpc.enable_retries", 0)]


def make_stubs(folder):
    """Generates Python code from proto/ into a folder and lets it be imported."""
    protos = os.path.join(ROOT, "proto")
    names = sorted(os.listdir(os.path.join(protos, "plumbline", "v1")))
    os.makedirs(folder)
    code = protoc.main(["protoc", f"-I{protos}",
                        f"-I{os.path.join(os.path.dirname(grpc_tools.__file__), '_proto')}",
                        f"--python_out={folder}", f"--grpc_python_out={folder}",
                        *(f"plumbline/v1/{name}" for name in names if name.endswith(".proto"))])
    assert code == 0, f"protoc ended with {code}"
    sys.path.insert(0, folder)


def v1(name):
    """The generated module of one proto file, such as v1("capture_pb2")."""
    return importlib.import_module(f"plumbline.v1.{name}")


class Change:
    """Alters messages of `method` on their way: requests or responses, parsed as `kind`.

    `alter(message, call)` says whether it altered the message; `call` is a dict of this call alone.
    """

    def __init__(self, method, direction, kind, alter):
        self.method, self.direction, self.kind, self.alter = method, direction, kind, alter
        self.made = 0

    def __call__(self, data, call):
        message = self.kind.FromString(data)
        if not self.alter(message, call):
            return data
        self.made += 1
        return message.SerializeToString()


class Relay(grpc.GenericRpcHandler):
    """Stands at an address of its own before the service at `target`."""

    def __init__(self, target):
        self.change = None
        self.watch = None  # called with (method, direction, bytes, call)
        self.messages = collections.Counter()  # (method, direction) -> messages
        self.lock = threading.Lock()
        self.channel = grpc.insecure_channel(target, UNLIMITED + QUICK)
        self.server = grpc.server(futures.ThreadPoolExecutor(16), (self,),
                                  options=UNLIMITED + [("grpc.so_reuseport", 0)])
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def close(self):
        self.server.stop(0).wait(10)
        self.channel.close()

    def service(self, details):
        # On the wire a unary call is a stream of one message.
        return grpc.stream_stream_rpc_method_handler(
            lambda requests, context: self._relay(details.method, requests, context))

    def _relay(self, path, requests, context):
        method, call = path.rpartition("/")[2], {}
        metadata = [(key, value) for key, value in context.invocation_metadata()
                    if key != "user-agent" and not key.startswith("grpc-")]
        onward = self.channel.stream_stream(path)(
            (self._pass(method, "request", data, call) for data in requests),
            timeout=context.time_remaining(), metadata=metadata)
        context.add_callback(onward.cancel)
        try:
            for data in onward:
                yield self._pass(method, "response", data, call)
        except grpc.RpcError:
            context.set_code(onward.code())
            context.set_details(onward.details())

    def _pass(self, method, direction, data, call):
        with self.lock:
            self.messages[method, direction] += 1
            if self.watch:
                self.watch(method, direction, data, call)
            change = self.change
            if change and (change.method, change.direction) == (method, direction):
                return change(data, call)
        return data

    @contextlib.contextmanager
    def changing(self, change):
        """Fails where nothing was altered, since such a test could not fail otherwise."""
        self.change = change
        try:
            yield change
        finally:
            self.change = None
        assert change.made, f"no {change.direction} of {change.method} was altered"


class RelayedCluster(Cluster):
    """Every service as a process of its own, with relays before capture, judge, pcr and quantsim."""

    def __init__(self, data, models, workers=2):
        self.data, self.models = data, models
        self.relays, self.processes, self.addresses = {}, {}, {}
        os.makedirs(os.path.join(data, "run"))
        try:
            self._start_all(workers)
        except BaseException:
            self.close()
            raise

    def _start_all(self, workers):
        config = v1("config_pb2")
        for name, kind, fields in (
                ("capture", config.CaptureConfig, {"data_dir": f"{self.data}/captures"}),
                ("judge", config.JudgeConfig, {"cache_file": f"{self.data}/judge.sqlite"}),
                ("pcr", config.PcrConfig, {})):
            self._start_behind_relay(name, kind(**fields))
        self._start_behind_relay("quantsim", config.QuantsimConfig(capture=self._peer("capture")))
        self.address = self._start("coordinator", config.CoordinatorConfig(
            store=config.StoreConfig(sqlite_file=f"{self.data}/plumbline.sqlite"),
            prompts_root=f"{self.data}/prompts", audit_fraction=1e-12,
            **{peer: self._peer(peer) for peer in ("judge", "pcr", "quantsim", "capture")}))
        for number in range(workers):
            self._start(f"worker-{number}", config.WorkerConfig(
                worker_id=f"worker-{number}", threads=1, model_roots=[self.models],
                coordinator=config.Endpoint(address=self.address), capture=self._peer("capture")))

    def _peer(self, name):
        return v1("config_pb2").Endpoint(address=self.relays[name].address)

    def _start_behind_relay(self, name, settings):
        self.relays[name] = Relay(self._start(name, settings))

    def _start(self, name, settings):
        ports = f"{self.data}/run/{name}.ports"
        settings.server.listen = self.addresses.get(name, "127.0.0.1:0")
        settings.server.port_file = ports
        with open(f"{self.data}/run/{name}.txtpb", "w") as file:
            file.write(text_format.MessageToString(settings))
        self._launch(name)

        def bound():
            if self.processes[name].poll() is not None:
                raise AssertionError(f"{name} ended:\n{self.log(name)}")
            with contextlib.suppress(OSError), open(ports) as file:
                return dict(line.split() for line in file).get("grpc")
            return None
        self.addresses[name] = f"127.0.0.1:{await_true(bound, 60, f'the port of {name}')}"
        settings.server.listen = self.addresses[name]  # for a second start
        with open(f"{self.data}/run/{name}.txtpb", "w") as file:
            file.write(text_format.MessageToString(settings))
        return self.addresses[name]

    def _launch(self, name):
        binary = "plumb-" + name.partition("-")[0]
        with open(f"{self.data}/run/{name}.log", "a") as log:
            self.processes[name] = subprocess.Popen(
                [os.path.join(BIN, binary), "--config", f"{self.data}/run/{name}.txtpb"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def log(self, name):
        with open(f"{self.data}/run/{name}.log") as file:
            return file.read()[-2000:]

    def pid(self, service):
        return self.processes[service].pid

    def take_away(self, service):
        """Ends a service, as an operator would."""
        self.processes[service].send_signal(signal.SIGTERM)
        self.processes[service].wait(40)

    def bring_back(self, service):
        self._launch(service)

    def close(self):
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            end(process)
        for relay in self.relays.values():
            relay.close()
