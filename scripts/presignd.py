"""What the checks in this folder share: above all, running presignd."""

import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time

# The secret key of the embedded store.
SECRET_KEY = "a-secret-key-of-the-checks"


def wait_for(what, condition, seconds=30):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    sys.exit(f"{pathlib.Path(sys.argv[0]).name}: waited {seconds} s for {what}")


def check(is_so, what):
    if not is_so:
        sys.exit(f"{pathlib.Path(sys.argv[0]).name}: failed: {what}")


def known_variables():
    """The names in .env.example."""
    example = pathlib.Path(__file__).resolve().parent.parent / ".env.example"
    return set(re.findall(r"^(?:# )?([A-Z0-9_]+)=", example.read_text(), re.MULTILINE))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Presignd:
    """`presignd dev` or `presignd serve` as a process of its own, in a folder of its own. Ends with the block."""

    def __init__(self, binary, arguments, variables=None, before=None):
        self.folder = tempfile.TemporaryDirectory(prefix="presignd-")
        self.log = pathlib.Path(self.folder.name, "log")
        self.variables = {"AWS_EC2_METADATA_DISABLED": "true", "LOG_FORMAT": "json", **(variables or {})}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [binary, *arguments],
                cwd=self.folder.name,
                env=self.variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=before,
            )

    def address(self, pattern):
        def found():
            if self.process.poll() is not None:
                sys.exit(f"{pathlib.Path(sys.argv[0]).name}: it ended: {self.log.read_text()}")
            return re.search(pattern, self.log.read_text())

        return wait_for("its address", found)[1]

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self.folder.cleanup()


class Dev(Presignd):
    def __init__(self, binary, data="data", variables=None):
        arguments = ["dev", "--addr", "127.0.0.1:0", "--s3-addr", "127.0.0.1:0", "--data-dir", str(data)]
        arguments += ["--secret-key", SECRET_KEY]
        super().__init__(binary, arguments, variables)
        self.base = self.address(r"service +(http://[^/\s]+)")
        self.store = self.address(r"S3 store +(http://[^,\s]+)")
