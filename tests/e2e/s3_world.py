"""A real S3 server (moto's) behind a proxy, a bucket in it, and a node to back up there."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

from shardtool.snapshots.remote.bucket import Patience
from tests.e2e.s3_proxy import Proxy, proxied
from tests.preloaded import preloaded
from tests.real.snapshot_world import command, environment

KEY, SECRET = "AKIATESTONLY", "s3cr3t-of-the-test"
LAST = "tagmanifest-sha256.txt"
# So impatient that a dead line is told at once.
HASTY = Patience(connect=2, silence=2, request=5, again=0.2)


@contextmanager
def moto() -> Iterator[str]:
    """Run moto's S3 server while the block runs; yield its URL."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@dataclass
class S3World:
    """A bucket, the way to it, and a node.

    Args:
        client: boto3's, past the proxy.
        proxy: what the command talks to.
        bucket: the bucket's name.
        node: the node's directory.
        home: the command's HOME.
        env: its further environment; may be changed.
    """

    client: Any
    proxy: Proxy
    bucket: str
    node: Path
    home: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The store."""
        return f"s3://{self.bucket}/influx/a"

    @property
    def temporary(self) -> Path:
        """The command's TMPDIR, which must be empty after each run."""
        return self.home / "tmp"

    def environment(self) -> dict[str, str]:
        """Return the environment of the command: nothing of ours but what finds Python."""
        kept = {k: v for k, v in environment().items() if not k.startswith("AWS_")}
        return {
            **kept,
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "AWS_ENDPOINT_URL": self.proxy.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            **self.env,
        }

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run shardtool; whatever comes of it, no secret is in what it prints."""
        done = preloaded().run([*map(str, words)], self.environment())
        for secret in (SECRET, "Traceback", "X-Amz", "Debug source"):
            assert secret not in done.stdout + done.stderr
        return done

    def start(self, *words: object) -> subprocess.Popen[str]:
        """Start shardtool."""
        return subprocess.Popen(
            command(*words),
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def backup(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run a backup of the node to the bucket."""
        return self.run("--data", self.node, "backup", "--to", self.url, *words)

    def backed_up(self) -> str:
        """Take a snapshot and return its id."""
        done = self.backup("--json")
        assert done.returncode == 0, done.stderr
        name: str = json.loads(done.stdout)["snapshot"]["id"]
        return name

    def document(self, *words: object) -> Any:
        """Run a command on the bucket and return its document."""
        done = self.run(*words, "--store", self.url, "--json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def ids(self) -> list[str]:
        """Return the snapshots that the command lists."""
        return [one["id"] for one in self.document("snapshots")["snapshots"]]

    def all_keys(self) -> list[str]:
        """Return all keys of the bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return [one["Key"] for page in pages for one in page.get("Contents", ())]

    def put(self, key: str, content: bytes) -> None:
        """Write an object past the command."""
        self.client.put_object(Bucket=self.bucket, Key=key, Body=content)

    def get(self, key: str) -> bytes:
        """Read an object past the command."""
        content: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return content

    def delete(self, key: str) -> None:
        """Delete an object past the command."""
        self.client.delete_object(Bucket=self.bucket, Key=key)

    def download(self, name: str, target: Path) -> Path:
        """Download a snapshot plainly, as any tool does."""
        prefix = f"influx/a/{name}/"
        for key in self.all_keys():
            if key.startswith(prefix):
                file = target / key.removeprefix(prefix)
                file.parent.mkdir(parents=True, exist_ok=True)
                self.client.download_file(self.bucket, key, str(file))
        return target

    def is_clean(self) -> bool:
        """Say whether nothing staged was left."""
        return not os.listdir(self.temporary)


@contextmanager
def s3_world(server: str, bucket: str, home: Path, node: Path) -> Iterator[S3World]:
    """Make a bucket in a running server, and a proxy before it."""
    client = boto3.client(
        "s3",
        endpoint_url=server,
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
    )
    client.create_bucket(Bucket=bucket)
    (home / "tmp").mkdir(parents=True)
    with proxied(server) as proxy:
        yield S3World(client, proxy, bucket, node, home)


Make = Callable[[], S3World]
