#!/usr/bin/env bash
# The three calls of an upload, with curl:
#
#   cargo run -- dev                      # in another terminal
#   examples/three-calls.sh [SERVICE]     # http://127.0.0.1:3000 if it is not given
#
# In an application, your back end sends the first and the third call, and the browser the second.
set -euo pipefail

service=${1:-http://127.0.0.1:3000}
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

# post PATH STATUS BODY: prints the answer, and exits if it has another status.
post() {
  local path=$1 expected=$2 body=$3 status
  status=$(curl -sS -o "$work/answer" -w '%{http_code}' "$service$path" \
    -H 'content-type: application/json' -d "$body")
  cat "$work/answer"
  [[ $status == "$expected" ]] || { echo "$path answered $status, not $expected" >&2; exit 1; }
}

# member NAME JSON: prints the first value with this name. It is enough for flat JSON; use a JSON parser
# in real code.
member() {
  local rest=${2#*\"$1\":}
  rest=${rest#\"}
  printf '%s\n' "${rest%%[\",\}]*}"
}

echo 'Hello, S3!' > "$work/hello.txt"
size=$(wc -c < "$work/hello.txt" | tr -d ' ')

echo '1. May I upload hello.txt?'
grant=$(post /upload/presigned-url 201 \
  "{\"filename\":\"hello.txt\",\"contentType\":\"text/plain\",\"size\":$size}")
url=$(member url "$grant")
key=$(member key "$grant")
echo "   yes, as $key"

echo '   (is it there already?)'
answer=$(post /upload/verify 404 "{\"key\":\"$key\"}")
echo "   $(member code "$answer")"

echo '2. Here it is.'
curl -sS --fail-with-body -T "$work/hello.txt" -H 'content-type: text/plain' "$url"

echo '3. Did it arrive?'
answer=$(post /upload/verify 200 "{\"key\":\"$key\",\"size\":$size,\"wait\":5}")
[[ $(member key "$answer") == "$key" && $(member size "$answer") == "$size" ]]
echo "   yes: $(member size "$answer") bytes of $(member contentType "$answer")"

echo '   (and if it should be one byte longer?)'
answer=$(post /upload/verify 409 "{\"key\":\"$key\",\"size\":$((size + 1))}")
echo "   $(member code "$answer"): $(member detail "$answer")"

echo '   (two keys at once, of which nobody uploaded one)'
answer=$(post /upload/verify 200 "{\"keys\":[\"$key\",\"secret.txt\"]}")
[[ $answer == *'"status":200'*'"status":404'* ]]
echo '   one is there, the other one is not'
