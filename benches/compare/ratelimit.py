#!/usr/bin/env python3
"""Runs the rate limit server and a peer in turns on this machine, under the same load, and prints what each did.

`--resp`: CL.THROTTLE beside Redis, in which a script decides by the same algorithm, under redis-benchmark.
`--rls`: Envoy's protocol beside a server of tonic that decodes the question and says yes to everything.
Only one server runs at a time. Compare ratios of one run, never figures of two runs.
Standard library only; started by `scripts/compare ratelimit`.
"""

import argparse
import csv
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile

from ledger import Failure, Server, clean_environment, first_line, processor_seconds, say

GENERATOR_EXTRA_S = 60
WARM_UP_REQUESTS = 50_000
# What redis-benchmark replaces by a number below --keys.
KEY = "key:__rand_int__"

# GCRA as redis-cell does it, with the clock of the server and the reply of CL.THROTTLE. A denial writes nothing.
GCRA = """
local burst, count, period = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local cell = period * 1000000 / count
local size = cell * (burst + 1)
local full = tonumber(redis.call('GET', KEYS[1]) or now)
if full < now then full = now end
local after = full + cell
local early = after - size - now
if early > 0 then
    return {1, burst + 1, math.floor((size - full + now) / cell), math.ceil(early / 1000000), math.ceil((full - now) / 1000000)}
end
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000))
return {0, burst + 1, math.floor(-early / cell), -1, math.ceil((after - now) / 1000000)}
"""

# case: (max_burst, count, period in seconds, distinct keys; None for --keys)
RESP_CASES = {
    "admit": ("1000000", "1000000", "60", None),
    "deny": ("0", "1", "3600", 1000),
}

RULES = """
domain: bench
descriptors:
  - key: path
    descriptors:
      - key: remote_address
        name: bench
        limit: 1000000/second
"""


class Redis:
    """Redis, which keeps nothing on disk."""

    name = "redis"

    def __init__(self, options, folder):
        self.port = free_port()
        self.server = Server([options.redis, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                              "--appendonly", "no", "--dir", folder], folder)
        self.server.wait_until(lambda: self.ask("PING") == "PONG", "redis-server")
        self.script = self.ask("SCRIPT", "LOAD", GCRA)

    def ask(self, *words):
        done = subprocess.run(["redis-cli", "-p", str(self.port), *words], stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=30, check=False)
        return done.stdout.decode().strip()

    def command(self, numbers):
        return ["EVALSHA", self.script, "1", KEY, *numbers]


class Ours:
    """The rate limit server in memory."""

    name = "ours"

    def __init__(self, options, folder):
        rules = os.path.join(folder, "rules.yaml")
        with open(rules, "w", encoding="utf-8") as file:
            file.write(RULES)
        self.server = Server(
            [options.strongroom, "ratelimit", "serve", "--rules", rules, "--rls-listen", "127.0.0.1:0",
             "--http-listen", "127.0.0.1:0", "--resp-listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0",
             "--keys", str(2 * options.keys), "--json"], folder)
        self.ready = ready_line(self.server)
        self.port = int(self.ready["resp_addr"].rpartition(":")[2])
        self.url = self.ready["rls_url"]

    def command(self, numbers):
        return ["CL.THROTTLE", KEY, *numbers]


class Echo:
    """The server of tonic that does nothing."""

    answer = "empty"
    name = "echo"

    def __init__(self, options, folder):
        self.server = Server([options.rls_load, "echo", "--answer", self.answer], folder)
        self.url = first_output(self.server, "rls-load echo").decode().strip()


class FullEcho(Echo):
    """The same with answers as long as ours."""

    answer = "full"
    name = "echo-full"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def first_output(server, what):
    os.set_blocking(server.process.stdout.fileno(), False)
    received = bytearray()

    def is_complete():
        received.extend(server.process.stdout.read() or b"")
        return b"\n" in received

    server.wait_until(is_complete, what)
    return bytes(received).split(b"\n", 1)[0]


def ready_line(server):
    ready = json.loads(first_output(server, "strongroom ratelimit serve"))
    if not ready.get("ready"):
        raise server.explain(f"strongroom ratelimit serve did not start: {ready.get('error')}")
    return ready


def generator(command, seconds):
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=clean_environment(),
                              timeout=seconds + GENERATOR_EXTRA_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise Failure(f"no answer from: {' '.join(command)}") from error
    if done.returncode != 0:
        raise Failure(f"status {done.returncode} from: {' '.join(command)}\n{done.stderr.decode()[-2000:]}")
    return done.stdout.decode()


def redis_benchmark(options, engine, command, pipeline, keys, requests):
    text = generator(["redis-benchmark", "-p", str(engine.port), "-c", str(options.connections), "-P", str(pipeline),
                      "-n", str(requests), "-r", str(keys), "--csv", *command], options.seconds)
    # It writes a warning first when the server has no CONFIG command.
    rows = list(csv.reader(text[text.index('"test"'):].splitlines()))
    row = dict(zip(rows[0], rows[1]))
    return {"ops": requests, "ops_per_s": float(row["rps"]), "p50_us": float(row["p50_latency_ms"]) * 1000,
            "p99_us": float(row["p99_latency_ms"]) * 1000}


def measure_resp(options, engine, case, pipeline):
    *numbers, keys = RESP_CASES[case]
    keys = keys or options.keys
    command = engine.command(numbers)
    warm = redis_benchmark(options, engine, command, pipeline, keys, WARM_UP_REQUESTS)
    requests = max(int(warm["ops_per_s"] * options.seconds), WARM_UP_REQUESTS)
    return with_processor_time(engine, lambda: redis_benchmark(options, engine, command, pipeline, keys, requests))


def measure_rls(options, engine, clients):
    command = [options.rls_load, "load", "--url", engine.url, "--clients", str(clients), "--connections",
               str(min(clients, 8)), "--keys", str(options.keys)]
    generator([*command, "--seconds", "1"], options.seconds)
    run = [*command, "--seconds", str(options.seconds)]
    figures = with_processor_time(engine, lambda: json.loads(generator(run, options.seconds)))
    if figures["errors"] or figures["denied"]:
        raise Failure(f"{engine.name}: {figures['errors']} errors and {figures['denied']} denials where none belong")
    return figures


def with_processor_time(engine, load):
    before = processor_seconds(engine.server.pid)
    figures = load()
    figures["processor_us_per_op"] = (processor_seconds(engine.server.pid) - before) * 1e6 / figures["ops"]
    return figures


def turn(options, engine_class, workloads, base):
    """One server's share of a round: a new process, every workload, stop."""
    folder = tempfile.mkdtemp(prefix=f"{engine_class.name}-", dir=base)
    engine = engine_class(options, folder)
    try:
        results = {}
        for name, measure in workloads.items():
            figures = results[name] = measure(options, engine)
            say(f"  {engine.name:9} {name:22} {figures['ops_per_s']:10.0f}/s  p50 {figures['p50_us']:>6.0f} us"
                f"  p99 {figures['p99_us']:>6.0f} us  cpu {figures['processor_us_per_op']:.2f} us/op")
        return results
    finally:
        engine.server.ask_to_stop()
        engine.server.stop()


def resp_workloads(options):
    return {f"{case}, pipeline {pipeline}": lambda options, engine, c=case, p=pipeline: measure_resp(options, engine, c, p)
            for case in RESP_CASES for pipeline in options.pipelines}


def rls_workloads(options):
    return {f"{clients} clients": lambda options, engine, c=clients: measure_rls(options, engine, c)
            for clients in options.clients}


def compare(options, title, engines, workloads, base):
    turns = {engine.name: [] for engine in engines}
    for number in range(1, options.rounds + 1):
        say(f"{title}, round {number} of {options.rounds}")
        for engine in engines:
            turns[engine.name].append(turn(options, engine, workloads, base))
    rows = []
    for workload in workloads:
        peer = None
        for engine in engines:
            figures = {figure: statistics.median(results[workload][figure] for results in turns[engine.name])
                       for figure in ("ops_per_s", "p50_us", "p99_us", "processor_us_per_op")}
            rows.append({"workload": workload, "engine": engine.name, **figures})
            if engine is Ours:
                rows[-1]["ratio"] = figures["ops_per_s"] / peer
            else:
                peer = peer or figures["ops_per_s"]
    return rows


def print_rows(title, rows):
    print(f"\n{title}")
    head = ["workload", "server", "ops/s", "ratio", "p50 us", "p99 us", "cpu us/op"]
    lines = [head]
    for row in rows:
        shown = f"{row['ratio']:.2f}" if "ratio" in row else ""
        lines.append([row["workload"], row["engine"], f"{row['ops_per_s']:,.0f}", shown, f"{row['p50_us']:,.0f}",
                      f"{row['p99_us']:,.0f}", f"{row['processor_us_per_op']:.2f}"])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(text.ljust(width) if column < 2 else text.rjust(width)
                        for column, (text, width) in enumerate(zip(line, widths))).rstrip())


def numbers(text):
    values = [int(part) for part in text.split(",")]
    if not values or min(values) < 1:
        raise argparse.ArgumentTypeError("needs positive numbers with commas between them")
    return values


def parse_options():
    parser = argparse.ArgumentParser(prog="scripts/compare ratelimit", description=__doc__.splitlines()[0])
    parser.add_argument("--resp", action="store_true", help="CL.THROTTLE beside Redis with a script")
    parser.add_argument("--rls", action="store_true", help="Envoy's protocol beside an empty server of tonic")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each server (3)")
    parser.add_argument("--seconds", type=int, default=3, help="seconds of each measurement (3)")
    parser.add_argument("--keys", type=int, default=100_000, help="distinct keys (100000)")
    parser.add_argument("--connections", type=int, default=50, help="connections of redis-benchmark (50)")
    parser.add_argument("--pipelines", type=numbers, default=[1, 16], help="requests under way on each (1,16)")
    parser.add_argument("--clients", type=numbers, default=[1, 64], help="clients over RLS (1,64)")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of tables")
    parser.add_argument("--redis", default=shutil.which("redis-server"), help="redis-server's binary (from PATH)")
    parser.add_argument("--strongroom", help=argparse.SUPPRESS)
    parser.add_argument("--rls-load", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds take 1 or more")
    if options.resp and not (options.redis and shutil.which("redis-benchmark")):
        raise Failure("redis-server or redis-benchmark is missing: scripts/setup --compare, or apt-get install redis-server")
    return options


def run():
    options = parse_options()
    base = tempfile.mkdtemp(prefix="compare-ratelimit-")
    machine = {"processors": os.cpu_count(), "kernel": platform.release(),
               "ours": first_line([options.strongroom, "--version"])}
    tables = {}
    try:
        if options.resp:
            machine["redis"] = first_line([options.redis, "--version"])
            tables["resp"] = compare(options, "RESP", [Redis, Ours], resp_workloads(options), base)
        if options.rls:
            tables["rls"] = compare(options, "RLS", [Echo, FullEcho, Ours], rls_workloads(options), base)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    if options.json:
        print(json.dumps({"machine": machine, **tables}, indent=2))
        return
    for name, value in machine.items():
        print(f"{name}: {value}")
    for name, rows in tables.items():
        print_rows(name, rows)
    print("\nMedians over rounds; ratio = ours / the first server of the workload. cpu us/op is the server's own processor time.")


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
