#!/usr/bin/env python3
"""Runs etcd and a Strongroom ledger in turns on one machine and one disk and prints what each did.

With `--nodes 3` each is a cluster of three on loopback, and all load goes to its leader (`read-follower`: to one follower).
Only one of the two runs at a time, with a fresh data directory every round. A probe of fdatasync stands before and after each
turn, because a disk's speed changes from minute to minute: compare ratios of one run, never figures of two runs.
Standard library only; started by `scripts/compare ledger`.
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 40
# What a generator may need beside its measurement: connecting and preloading the keys.
GENERATOR_EXTRA_S = 90
PROBE_S = 1.0
PROBE_BYTES = 4096
WARM_UP_S = 1
WARM_UP_CLIENTS = 64
# File systems on which fsync does nothing: figures from them would be about memory.
MEMORY_FILE_SYSTEMS = {"tmpfs", "ramfs", "devtmpfs"}
OPERATIONS = ("write", "read", "read-follower", "read-eventual", "txn100")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def say(text):
    print(text, file=sys.stderr, flush=True)


class Failure(Exception):
    """Something that the person at the terminal has to know, without a traceback."""


def ports_of(folder, count):
    """Free ports, the same for every start on this folder: members know each other by them."""
    path = os.path.join(folder, "ports")
    if not os.path.exists(path):
        with contextlib.ExitStack() as held:
            listeners = [held.enter_context(socket.socket()) for _ in range(count)]
            for listener in listeners:
                listener.bind(("127.0.0.1", 0))
            with open(path, "w", encoding="ascii") as file:
                json.dump([listener.getsockname()[1] for listener in listeners], file)
    with open(path, encoding="ascii") as file:
        return json.load(file)


def post(url, document):
    """The answer of a JSON API; None when there is none."""
    request = urllib.request.Request(url, json.dumps(document).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:
            return json.loads(answer.read(1024 * 1024))
    except OSError:
        return None


def clean_environment():
    """The caller's environment without settings that would reach a server."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("ETCD_", "ETCDCTL_", "STRONGROOM_", "OTEL_"))}


def scrape(url):
    """Sums of a Prometheus text page by metric name; empty when the page cannot be read."""
    sums = {}
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read(32 * 1024 * 1024).decode()
    except OSError as error:
        say(f"  metrics at {url}: {error}")
        return sums
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        series, _, value = line.rpartition(" ")
        name = series.partition("{")[0]
        try:
            sums[name] = sums.get(name, 0.0) + float(value)
        except ValueError:
            continue
    return sums


def processor_seconds(pid):
    """User and system time of the process and all its threads."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def fdatasync_probe(folder):
    """How fast this disk makes 4 KiB appends durable right now."""
    path = os.path.join(folder, "probe")
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    block = os.urandom(PROBE_BYTES)
    took = []
    try:
        end = time.monotonic() + PROBE_S
        while time.monotonic() < end:
            started = time.monotonic()
            os.write(descriptor, block)
            os.fdatasync(descriptor)
            took.append(time.monotonic() - started)
    finally:
        os.close(descriptor)
        os.unlink(path)
    return {"syncs_per_s": len(took) / sum(took), "p50_us": statistics.median(took) * 1e6}


class Server:
    """A server in a process of its own, stopped by its process id."""

    def __init__(self, command, folder):
        os.makedirs(folder, exist_ok=True)
        self.folder = folder
        self.log_path = os.path.join(folder, "server.log")
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=clean_environment(),
                start_new_session=True,
            )

    @property
    def pid(self):
        return self.process.pid

    def explain(self, text):
        with open(self.log_path, "rb") as log:
            tail = log.read()[-2000:].decode(errors="replace")
        return Failure(f"{text}; last lines of its log:\n{tail}")

    def wait_until(self, ready, what):
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise self.explain(f"{what} stopped with status {self.process.returncode} before it was ready")
            if ready():
                return
            time.sleep(0.05)
        raise self.explain(f"{what} was not ready within {START_TIMEOUT_S} s")

    def ask_to_stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def stop(self):
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            say(f"  pid {self.pid} ignored SIGTERM for {STOP_TIMEOUT_S} s: killed")
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class Engine:
    """One server, or several that are a cluster; `servers`, `urls` and `metrics_urls` in the same order."""

    def wait(self):
        """Waits until the cluster serves, and finds out who leads."""
        self.wait_ready()
        self.servers[0].wait_until(self.find_leader, f"a leader of {self.name}")

    def find_leader(self):
        self.leader = self.leader_now()
        return self.leader is not None

    @property
    def metrics_url(self):
        return self.metrics_urls[self.leader]

    def target(self, operation):
        """The place of the server that the load goes to."""
        if operation != "read-follower":
            return self.leader
        return (self.leader + 1) % len(self.servers)

    def processor_seconds(self):
        return [processor_seconds(server.pid) for server in self.servers]

    def stop(self):
        # All at once: two that wait for a third, or one that hands over its lead to them, is not what is measured.
        for server in self.servers:
            server.ask_to_stop()
        for server in self.servers:
            server.stop()


class Etcd(Engine):
    name = "etcd"
    # Counters of durable writes of the log, of other syncs, and of writes and reads done.
    syncs = ["etcd_disk_wal_fsync_duration_seconds_count"]
    other_syncs = ["etcd_disk_backend_commit_duration_seconds_count"]
    writes = "etcd_mvcc_put_total"

    def __init__(self, options, folder):
        self.options = options
        ports = ports_of(folder, 2 * options.nodes)
        self.urls = [f"http://127.0.0.1:{port}" for port in ports[: options.nodes]]
        peers = [f"http://127.0.0.1:{port}" for port in ports[options.nodes:]]
        self.metrics_urls = [f"{url}/metrics" for url in self.urls]
        names = [f"compare-{number}" for number in range(1, options.nodes + 1)]
        members = ",".join(f"{name}={peer}" for name, peer in zip(names, peers))
        self.servers = []
        for name, url, peer in zip(names, self.urls, peers):
            own = os.path.join(folder, name)
            self.servers.append(Server(
                [options.etcd, "--name", name, "--data-dir", os.path.join(own, "data"), "--logger", "zap",
                 "--log-level", "warn", "--listen-client-urls", url, "--advertise-client-urls", url,
                 "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", members],
                own,
            ))

    def wait_ready(self):
        def healthy(url):
            try:
                with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
                    return b'"true"' in answer.read(4096)
            except OSError:
                return False

        for server, url in zip(self.servers, self.urls):
            server.wait_until(lambda url=url: healthy(url), "etcd")

    def leader_now(self):
        answers = [post(f"{url}/v3/maintenance/status", {}) or {} for url in self.urls]
        leaders = {answer.get("leader") for answer in answers}
        if len(leaders) != 1 or None in leaders:
            return None
        ids = [answer["header"]["member_id"] for answer in answers]
        return ids.index(leaders.pop())

    def generator(self, operation):
        return [self.options.etcd_load, "--url", self.urls[self.target(operation)]]


class Ours(Engine):
    name = "ours"
    syncs = ["ledger_log_syncs_total"]
    other_syncs = ["ledger_state_syncs_total"]
    writes = "ledger_writes_total"

    def __init__(self, options, folder):
        self.options = options
        ports = ports_of(folder, 2 * options.nodes)
        peers = [f"127.0.0.1:{port}" for port in ports[options.nodes:]]
        self.servers = []
        for number, (port, peer) in enumerate(zip(ports, peers), 1):
            own = os.path.join(folder, f"node-{number}")
            cluster = [] if options.nodes == 1 else [
                "--name", f"node-{number}", "--peer-listen", peer, "--peer-insecure", "--bootstrap", str(options.nodes),
                "--join", ",".join(peers), "--poll", "200ms"]
            self.servers.append(Server(
                [options.strongroom, "ledger", "serve", "--data", os.path.join(own, "data"),
                 "--listen", f"127.0.0.1:{port}", "--metrics", "127.0.0.1:0", *cluster, "--json"],
                own,
            ))
            os.set_blocking(self.servers[-1].process.stdout.fileno(), False)

    def wait_ready(self):
        lines = [self.ready_line(server) for server in self.servers]
        self.urls = [line["ledger_url"] for line in lines]
        pages = [line["metrics_url"].rstrip("/") for line in lines]
        self.metrics_urls = [page if page.endswith("/metrics") else f"{page}/metrics" for page in pages]
        self.token_file = next(line["token_file"] for line in lines if line.get("token_file"))

    @staticmethod
    def ready_line(server):
        received = bytearray()

        def line_is_complete():
            received.extend(server.process.stdout.read() or b"")
            return b"\n" in received

        server.wait_until(line_is_complete, "strongroom ledger serve")
        ready = json.loads(received.split(b"\n", 1)[0])
        if not ready.get("ready"):
            raise server.explain(f"strongroom ledger serve did not start: {ready.get('error')}")
        return ready

    def leader_now(self):
        leading = [scrape(url).get("ledger_raft_is_leader") for url in self.metrics_urls]
        return leading.index(1.0) if leading.count(1.0) == 1 else None

    def generator(self, operation):
        stay = ["--stay"] if operation == "read-follower" else []
        return [self.options.strongroom, "bench", "ledger", "--url", self.urls[self.target(operation)], *stay,
                "--token-file", self.token_file, "--calls", self.options.calls]


@contextlib.contextmanager
def running(engine_class, options, folder):
    """A ready server on this folder's data, stopped at the end of the block."""
    engine = engine_class(options, folder)
    try:
        engine.wait()
        yield engine
    finally:
        engine.stop()


def generate(engine, options, operation, clients, seconds):
    """One measurement: the generator's one line."""
    op = "read" if operation == "read-follower" else operation
    command = [*engine.generator(operation), "--clients", str(clients), "--seconds", str(seconds), "--op", op,
               "--connections", str(options.connections), "--value-bytes", str(options.value_bytes),
               "--keys", str(options.keys), "--json"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=clean_environment(), timeout=seconds + GENERATOR_EXTRA_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise Failure(f"no answer from: {' '.join(command)}") from error
    lines = [line for line in done.stdout.decode().splitlines() if line.startswith("{")]
    if done.returncode != 0 or len(lines) != 1:
        raise Failure(f"status {done.returncode} from: {' '.join(command)}\n{done.stderr.decode()[-2000:]}")
    return json.loads(lines[0])


def counter(before, after, names):
    """How much the counters grew together; None when the server does not have them."""
    found = [after[name] - before.get(name, 0.0) for name in names if name in after]
    return sum(found) if found else None


def ratio(part, whole):
    return part / whole if part is not None and whole else None


def measure(engine, options, operation, clients):
    before, processor_before = scrape(engine.metrics_url), engine.processor_seconds()
    children_before = resource.getrusage(resource.RUSAGE_CHILDREN)
    line = generate(engine, options, operation, clients, options.seconds)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    processors = [after - before for after, before in zip(engine.processor_seconds(), processor_before)]
    after = scrape(engine.metrics_url)
    if engine.leader_now() != engine.leader:
        raise Failure(f"another node of {engine.name} leads after {operation} with {clients} clients: measure again")
    if line.get("errors"):
        say(f"  {engine.name}: {line['errors']} errors in {operation} with {clients} clients")

    ops = line.get("ops") or line["ops_per_s"] * options.seconds
    figures = {name: line[name] for name in ("ops_per_s", "p50_us", "p99_us", "p999_us", "max_us")}
    figures["ops"] = ops
    figures["errors"] = line.get("errors", 0)
    # Of writes the server's own count, so that a generator's preload does not distort the figure.
    done = counter(before, after, [engine.writes]) if operation == "write" else None
    done = done or ops
    figures["processor_us_per_op"] = sum(processors) * 1e6 / done
    figures["processor_us_per_op_and_node"] = sum(processors) * 1e6 / done / len(processors)
    figures["leader_processor_us_per_op"] = processors[engine.leader] * 1e6 / done
    generator = (children.ru_utime - children_before.ru_utime) + (children.ru_stime - children_before.ru_stime)
    figures["generator_processor_us_per_op"] = generator * 1e6 / ops
    if operation == "write":
        figures["log_syncs_per_op"] = ratio(counter(before, after, engine.syncs), done)
        figures["other_syncs_per_op"] = ratio(counter(before, after, engine.other_syncs), done)
    return figures


def turn(engine_class, options, base, number):
    """One engine's share of a round: fresh directory, every workload, stop.

    Every operation gets a server of its own on the same data, and reads one that has written nothing since it started:
    etcd 3.4 copies the buffer of its last write burst at each read, which makes reads after writes three times slower
    and would flatter us.
    """
    folder = tempfile.mkdtemp(prefix=f"{engine_class.name}-{number}-", dir=base)
    probe_before = fdatasync_probe(folder)
    results = {}
    for operation in options.ops:
        if operation != "write":
            with running(engine_class, options, folder) as engine:
                generate(engine, options, operation, WARM_UP_CLIENTS, WARM_UP_S)
        with running(engine_class, options, folder) as engine:
            generate(engine, options, operation, WARM_UP_CLIENTS, WARM_UP_S)
            for clients in options.clients:
                figures = measure(engine, options, operation, clients)
                results[f"{operation} {clients}"] = figures
                say(f"  {engine.name:5} {operation:13} {clients:4} clients {figures['ops_per_s']:10.0f}/s"
                    f"  p50 {figures['p50_us']:>7} us  p99 {figures['p99_us']:>7} us")
    probe_after = fdatasync_probe(folder)
    shutil.rmtree(folder)
    return {"engine": engine_class.name, "round": number, "probe_before": probe_before, "probe_after": probe_after,
            "load_average": os.getloadavg()[0], "results": results}


def median_of(turns, engine, workload, figure):
    values = [t["results"][workload].get(figure) for t in turns if t["engine"] == engine]
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


FIGURES = ("ops_per_s", "p50_us", "p99_us", "p999_us", "max_us", "processor_us_per_op",
           "processor_us_per_op_and_node", "leader_processor_us_per_op",
           "generator_processor_us_per_op", "log_syncs_per_op", "other_syncs_per_op")


def summarize(turns, engines, workloads):
    rows = []
    for workload in workloads:
        operation, clients = workload.split()
        row = {"op": operation, "clients": int(clients)}
        for engine in engines:
            row[engine.name] = {figure: median_of(turns, engine.name, workload, figure) for figure in FIGURES}
        if len(engines) == 2:
            row["ratio"] = ratio(row["ours"]["ops_per_s"], row["etcd"]["ops_per_s"])
            row["ratio_per_round"] = per_round_ratios(turns, workload)
        rows.append(row)
    probes = [t[when] for t in turns for when in ("probe_before", "probe_after")]
    rates = sorted(probe["syncs_per_s"] for probe in probes)
    return {"rows": rows, "probe": {
        "syncs_per_s_min": rates[0], "syncs_per_s_median": statistics.median(rates), "syncs_per_s_max": rates[-1],
        "p50_us_median": statistics.median(probe["p50_us"] for probe in probes)}}


def per_round_ratios(turns, workload):
    by_round = {}
    for t in turns:
        by_round.setdefault(t["round"], {})[t["engine"]] = t["results"][workload]["ops_per_s"]
    return [round(r["ours"] / r["etcd"], 3) for r in by_round.values() if len(r) == 2 and r["etcd"]]


def cell(value, digits=0):
    return "-" if value is None else f"{value:,.{digits}f}"


def print_table(summary, engines, machine, nodes):
    if nodes > 1:
        print(f"{nodes} nodes each, on the same machine; load on the leader, read-follower on one follower")
    print(f"{machine['processors']} processors, {machine['kernel']}, {machine['file_system']} at {machine['folder']}")
    for name, version in machine["versions"].items():
        print(f"{name}: {version}")
    probe = summary["probe"]
    print(f"fdatasync of 4 KiB appends: median {probe['syncs_per_s_median']:,.0f}/s (p50 {probe['p50_us_median']:.0f} us), "
          f"{probe['syncs_per_s_min']:,.0f} to {probe['syncs_per_s_max']:,.0f}/s over the run")
    print()
    head = ["op", "clients", "engine", "ops/s", "ratio", "p50 us", "p99 us", "p99.9 us", "max us", "log syncs/op",
            "other syncs/op", "cpu us/op"]
    if nodes > 1:
        head += ["per node", "leader"]
    lines = [head]
    for row in summary["rows"]:
        for engine in engines:
            figures = row[engine.name]
            shown = f"{row['ratio']:.2f}" if engine.name == "ours" and row.get("ratio") else ""
            lines.append([row["op"], str(row["clients"]), engine.name, cell(figures["ops_per_s"]), shown,
                          cell(figures["p50_us"]), cell(figures["p99_us"]), cell(figures["p999_us"]),
                          cell(figures["max_us"]), cell(figures["log_syncs_per_op"], 4),
                          cell(figures["other_syncs_per_op"], 5), cell(figures["processor_us_per_op"], 1)])
            if nodes > 1:
                lines[-1] += [cell(figures["processor_us_per_op_and_node"], 1),
                              cell(figures["leader_processor_us_per_op"], 1)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(text.ljust(width) if column in (0, 2) else text.rjust(width)
                        for column, (text, width) in enumerate(zip(line, widths))).rstrip())
    print("\nMedians over rounds; ratio = ours / etcd. cpu us/op is the server's own processor time.")
    if nodes > 1:
        print("Of a cluster it is that of all nodes together; the next columns are its mean and the leader's share.")
        print_follower_cost(summary, engines)


def print_follower_cost(summary, engines):
    """What a linearizable read costs on a follower, in processor time of all nodes, beside one on the leader."""
    rows = {(row["op"], row["clients"]): row for row in summary["rows"]}
    for (op, clients), row in rows.items():
        on_leader = rows.get(("read", clients))
        if op != "read-follower" or on_leader is None:
            continue
        for engine in engines:
            cost = ratio(row[engine.name]["processor_us_per_op"], on_leader[engine.name]["processor_us_per_op"])
            pace = ratio(on_leader[engine.name]["ops_per_s"], row[engine.name]["ops_per_s"])
            print(f"{engine.name}: a read on a follower, {clients} clients: {cell(cost, 2)} x the processor time, "
                  f"{cell(pace, 2)} x the time of one on the leader")


def file_system_of(folder):
    best, kind = "", "unknown"
    folder = os.path.realpath(folder)
    with open("/proc/mounts", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            _, point, name = line.split()[:3]
            if (folder == point or folder.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
                best, kind = point, name
    return kind


def first_line(command):
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
        return done.stdout.decode().splitlines()[0]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return "unknown"


def numbers(text):
    values = [int(part) for part in text.split(",")]
    if not values or min(values) < 1:
        raise argparse.ArgumentTypeError("needs positive numbers with commas between them")
    return values


def operations(text):
    values = text.split(",")
    for value in values:
        if value not in OPERATIONS:
            raise argparse.ArgumentTypeError(f"{value} is none of {', '.join(OPERATIONS)}")
    return values


def parse_options():
    parser = argparse.ArgumentParser(prog="scripts/compare ledger", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="turns of each engine (3)")
    parser.add_argument("--seconds", type=int, default=5, help="seconds per measurement (5)")
    parser.add_argument("--clients", type=numbers, default=[1, 64, 256], help="concurrent clients (1,64,256)")
    parser.add_argument("--nodes", type=int, choices=(1, 3, 5), default=1, help="nodes of each (1)")
    parser.add_argument("--ops", type=operations, default=None,
                        help="write, read (linearizable), read-follower, read-eventual, txn100: 100 puts that count "
                             "once (write,read,txn100; of several nodes write,read,read-follower)")
    parser.add_argument("--calls", choices=("stream", "request"), default="stream",
                        help="how our client's calls travel: over a stream per connection, as it does, or each as a "
                             "request of its own, as etcd's client does (stream)")
    parser.add_argument("--connections", type=int, default=8, help="connections of a generator (8)")
    parser.add_argument("--value-bytes", type=int, default=256, help="bytes of a value (256)")
    parser.add_argument("--keys", type=int, default=10_000, help="distinct keys (10000)")
    parser.add_argument("--only", choices=("etcd", "ours"), help="measure one of the two")
    parser.add_argument("--dir", default=None, help="where both servers keep their data (the checkout's target folder)")
    parser.add_argument("--json", action="store_true", help="everything that was measured, as one JSON document")
    parser.add_argument("--etcd", default=shutil.which("etcd"), help="etcd's binary (from PATH)")
    parser.add_argument("--etcd-load", help=argparse.SUPPRESS)
    parser.add_argument("--strongroom", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ops is None:
        options.ops = ["write", "read", "txn100"] if options.nodes == 1 else ["write", "read", "read-follower"]
    if options.nodes == 1 and "read-follower" in options.ops:
        parser.error("read-follower needs --nodes 3")
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds take 1 or more")
    if options.only != "ours" and not options.etcd:
        raise Failure("etcd is missing: scripts/setup --compare, or apt-get install etcd-server")
    return options


def run():
    options = parse_options()
    engines = [e for e in (Etcd, Ours) if options.only in (None, e.name)]
    parent = options.dir
    if parent is None:
        parent = os.path.dirname(options.strongroom or options.etcd_load)
    os.makedirs(parent, exist_ok=True)
    file_system = file_system_of(parent)
    if file_system in MEMORY_FILE_SYSTEMS:
        raise Failure(f"{parent} is on {file_system}, where fsync does nothing; name a disk with --dir")
    versions = {}
    if Etcd in engines:
        versions["etcd"] = first_line([options.etcd, "--version"])
    if Ours in engines:
        versions["ours"] = first_line([options.strongroom, "--version"])
    machine = {"processors": os.cpu_count(), "kernel": platform.release(), "file_system": file_system,
               "folder": parent, "versions": versions}
    base = tempfile.mkdtemp(prefix="compare-ledger-", dir=parent)
    turns = []
    try:
        for number in range(1, options.rounds + 1):
            say(f"round {number} of {options.rounds}")
            for engine in engines:
                turns.append(turn(engine, options, base, number))
    finally:
        shutil.rmtree(base, ignore_errors=True)
    workloads = list(turns[0]["results"])
    summary = summarize(turns, engines, workloads)
    if options.json:
        settings = {"nodes": options.nodes, "rounds": options.rounds, "seconds": options.seconds, "connections": options.connections,
                    "value_bytes": options.value_bytes, "keys": options.keys, "calls": options.calls}
        print(json.dumps({"machine": machine, "settings": settings, **summary, "turns": turns}, indent=2))
    else:
        print_table(summary, engines, machine, options.nodes)


def main():
    # SIGTERM unwinds like Ctrl-C, so that a running server is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run()
    except Failure as failure:
        say(f"scripts/compare: {failure}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
