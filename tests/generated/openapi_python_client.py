"""An upload with what openapi-python-client writes."""

import sys

import httpx

from out.python import AuthenticatedClient
from out.python.api.upload import presign_upload, verify_upload
from out.python.models import FileRequest, PresignedUrl, Problem, VerifiedUpload, VerifyOne
from out.python.types import Unset

# The service of this test needs no token, but the functions accept no other client.
client = AuthenticatedClient(base_url=sys.argv[1], token="none")

grant = presign_upload.sync(client=client, body=FileRequest(filename="note.txt", content_type="text/plain"))
assert isinstance(grant, PresignedUrl), grant
headers = grant.headers.additional_properties
httpx.request(grant.method, grant.url, headers=headers, content=b"hello").raise_for_status()

found = verify_upload.sync(client=client, body=VerifyOne(key=grant.key, size=5))
assert isinstance(found, VerifiedUpload) and found.size == 5, found

# A problem has a type, too.
refusal = presign_upload.sync(client=client, body=FileRequest(filename="a/b", content_type="text/plain"))
assert isinstance(refusal, Problem) and not isinstance(refusal.errors, Unset), refusal
assert refusal.errors[0].pointer == "/filename", refusal
