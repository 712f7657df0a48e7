"""Uploads a file: python upload.py FILE [TYPE]. Needs the package `requests`."""

import os
import sys

import requests

SERVICE = os.environ.get("PRESIGND", "http://localhost:3000")


def ask(path: str, body: dict[str, str | int]) -> dict:
    answer = requests.post(SERVICE + path, json=body, timeout=30)
    if not answer.ok:
        sys.exit(answer.json()["detail"])
    return answer.json()


path = sys.argv[1]
media_type = sys.argv[2] if len(sys.argv) > 2 else "application/octet-stream"

file = {"filename": os.path.basename(path), "contentType": media_type, "size": os.path.getsize(path)}
grant = ask("/upload/presigned-url", file)
with open(path, "rb") as content:
    # `requests` would send an empty file in chunks, without the Content-Length that stores ask for.
    data = content if file["size"] else b""
    sent = requests.request(grant["method"], grant["url"], headers=grant["headers"], data=data)
if not sent.ok:
    sys.exit(f"the store answered {sent.status_code}: {sent.text}")

upload = ask("/upload/verify", {"key": grant["key"]})
print(upload["key"], upload["size"])
