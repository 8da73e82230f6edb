"""One node alone, and the load generator: what the scripts here that measure a single node share."""
import json
import os
import signal
import socket
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def build(binary, package):
    command = ["cargo", "build", "--release", "-p", package, "--bin", binary, "--message-format", "json-render-diagnostics"]
    built = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = [json.loads(line) for line in built.splitlines()]
    return next(m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == binary)


class Node:
    def __init__(self, work, port, flags=()):
        self.program, self.bench = build("holdfast", "server"), build("holdfast-bench", "bench")
        self.work, self.port, self.flags = work, port, list(flags)
        self.endpoint = f"127.0.0.1:{port}"
        self.process = None
        os.makedirs(work, exist_ok=True)

    def start(self, before=None):
        serve = [self.program, "serve", "--id", "1", "--data", f"{self.work}/data", "--listen", self.endpoint]
        serve += ["--peer-listen", f"127.0.0.1:{self.port + 10}", *self.flags]
        log = open(f"{self.work}/log", "a")
        self.process = subprocess.Popen(serve, stdout=log, stderr=log, preexec_fn=before)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()

    def log(self):
        with open(f"{self.work}/log") as lines:
            return lines.read()

    def wait_until_serving(self, seconds=300):
        """Until a linearizable read is answered; how long that took."""
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            if self.process.poll() is not None:
                raise SystemExit(f"the node ended:\n{self.log()[-2000:]}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
            except OSError:
                time.sleep(0.005)
                continue
            get = [self.program, "get", "bench/000000000000000000", "--endpoints", self.endpoint, "--timeout", "1s"]
            if subprocess.run(get, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode in (0, 3):
                return time.monotonic() - began
        raise SystemExit("the node does not serve")

    def go_over(self, word, keys, value_bytes):
        command = [self.bench, word, "--endpoints", self.endpoint, "--keys", str(keys)]
        command += ["--value-bytes", str(value_bytes), "--json"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def report(self, word, keys, value_bytes):
        running = self.go_over(word, keys, value_bytes)
        said = running.communicate()[0]
        if running.returncode != 0:
            raise SystemExit(f"{word}: {said}")
        return json.loads(said.splitlines()[-1])

    def resident_mib(self):
        """Now, and at most."""
        with open(f"/proc/{self.process.pid}/status") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        return tuple(int(fields[name].split()[0]) // 1024 for name in ("VmRSS", "VmHWM"))
