"""Uploads a file: python upload.py FILE [TYPE]. Needs the package `requests`."""

import os
import sys

import requests

SERVICE = os.environ.get("PRESIGND", "http://localhost:3000")


def ask(path: str, body: dict[str, str]) -> dict:
    answer = requests.post(SERVICE + path, json=body, timeout=30)
    if not answer.ok:
        sys.exit(answer.json()["detail"])
    return answer.json()


path = sys.argv[1]
media_type = sys.argv[2] if len(sys.argv) > 2 else "application/octet-stream"

grant = ask("/upload/presigned-url", {"filename": os.path.basename(path), "contentType": media_type})
with open(path, "rb") as file:
    requests.request(grant["method"], grant["url"], headers=grant["headers"], data=file).raise_for_status()

upload = ask("/upload/verify", {"key": grant["key"]})
print(upload["key"], upload["size"])
