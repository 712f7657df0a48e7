"""An upload with the Python package that openapi-generator writes."""

import pathlib
import sys

import urllib3

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "out/openapi-generator/python"))

import openapi_client
from openapi_client import FileRequest, Problem, VerifiedUpload, VerifyOne, VerifyRequest

api = openapi_client.UploadApi(openapi_client.ApiClient(openapi_client.Configuration(host=sys.argv[1])))

grant = api.presign_upload(FileRequest(filename="노트.txt", content_type="text/plain"))
sent = urllib3.request(grant.method, grant.url, headers=grant.headers, body=b"hello")
assert sent.status == 200, sent.data

found = api.verify_upload(VerifyRequest(VerifyOne(key=grant.key, size=5))).actual_instance
assert isinstance(found, VerifiedUpload) and found.size == 5, found

# An answer with an enum.
signed = openapi_client.UppyApi(api.api_client).presign_for_uppy("note.txt")
assert signed.method == openapi_client.UppyMethod.POST, signed

# A problem has a type, too.
try:
    api.verify_upload(VerifyRequest(VerifyOne(key="uploads/missing")))
    raise AssertionError("an upload that is missing was verified")
except openapi_client.exceptions.NotFoundException as refusal:
    assert isinstance(refusal.data, Problem) and refusal.data.code == "not-uploaded", refusal
