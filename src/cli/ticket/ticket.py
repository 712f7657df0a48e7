# Creates a ticket: python3 ticket.py. The secret and the names are those of presignd's variables.
import base64, hmac, json, os, sys, time

variable = lambda name: os.environ.get(name) or sys.exit(f"{name} is not set; a ticket needs the value that presignd has")
secret, now = variable("JWT_SECRET"), int(time.time())
claims = {"iss": variable("JWT_ISSUER"), "aud": variable("JWT_AUDIENCE"), "sub": "user-17", "iat": now, "exp": now + 3600}
claims["upload"] = {"max_size": 5242880, "content_types": ["image/*"]}
# Sign:
part = lambda value: base64.urlsafe_b64encode(value).rstrip(b"=")
text = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
ticket = (text + b"." + part(hmac.digest(secret.encode(), text, "sha256"))).decode()

print(ticket)
