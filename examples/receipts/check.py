# Checks a receipt: python3 check.py KEYS RECEIPT. KEYS is a copy of /.well-known/jwks.json, in a file.
# It needs the package `cryptography`.
import base64
import json
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def decoded(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def claims_of(receipt, keys):
    """The claims of a receipt that one of the keys signed; otherwise an exception."""
    header, claims, signature = receipt.split(".")
    names = json.loads(decoded(header))
    key = next((key for key in keys if key["kid"] == names["kid"]), None)
    if names["alg"] != "EdDSA" or names["typ"] != "upload-receipt+jwt" or key is None:
        raise ValueError("not a receipt of these keys")
    public = Ed25519PublicKey.from_public_bytes(decoded(key["x"]))
    public.verify(decoded(signature), f"{header}.{claims}".encode())
    return json.loads(decoded(claims))


with open(sys.argv[1]) as file:
    print(json.dumps(claims_of(sys.argv[2], json.load(file)["keys"])))
