"""Uploads a large file in parts: python parts.py FILE [TYPE]. Needs the package `requests`."""

import os
import sys
import time

import requests

SERVICE = os.environ.get("PRESIGND", "http://localhost:3000")
PART_SIZE = 16 * 2**20  # At least 5 MiB. One part at a time is in memory.
ATTEMPTS = 5


def ask(method: str, path: str, **more) -> dict:
    """Asks presignd, again if there is no answer or it is busy: each of these calls can be repeated."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            answer = requests.request(method, SERVICE + path, timeout=180, **more)
        except requests.RequestException:
            if attempt == ATTEMPTS:
                raise
        else:
            if answer.ok:
                return answer.json()
            if attempt == ATTEMPTS or answer.status_code not in (429, 502, 503, 504):
                raise SystemExit(answer.json()["detail"])
        time.sleep(attempt)
    raise AssertionError("the last attempt returns or raises")


def send(part: bytes, path: str, key: str) -> str:
    """Sends one part, and returns its entity tag. Each attempt has a new URL, as one expires."""
    problem = ""
    for _ in range(ATTEMPTS):
        url = ask("GET", path, params={"key": key, "size": len(part)})["url"]
        try:
            sent = requests.put(url, data=part, timeout=600)
        except requests.RequestException as error:
            problem = str(error)
            continue
        if sent.ok:
            return sent.headers["etag"]
        problem = f"the store answered {sent.status_code}: {sent.text}"
    raise SystemExit(problem)


def upload(path: str, media_type: str) -> dict:
    size = os.path.getsize(path)
    file = {"filename": os.path.basename(path), "type": media_type, "size": size}
    created = ask("POST", "/s3/multipart", json=file)
    key, route = created["key"], f"/s3/multipart/{created['uploadId']}"
    try:
        parts = []
        with open(path, "rb") as content:
            # An empty file has one part, which is empty.
            for number in range(1, max(1, -(-size // PART_SIZE)) + 1):
                etag = send(content.read(PART_SIZE), f"{route}/{number}", key)
                parts.append({"PartNumber": number, "ETag": etag})
    except BaseException:
        # The store keeps the parts of an upload that is neither completed nor aborted.
        ask("DELETE", route, params={"key": key})
        raise
    # It is not aborted if this fails: the store may be completing it.
    body = {"parts": parts, "verify": True}
    return ask("POST", f"{route}/complete", params={"key": key}, json=body)


done = upload(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "application/octet-stream")
if "upload" not in done:
    # Its object is not what was granted, or the store was slow: this call says which.
    done["upload"] = ask("POST", "/upload/verify", json={"key": done["key"]})
print(done["upload"]["key"], done["upload"]["size"])
