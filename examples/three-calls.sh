#!/usr/bin/env bash
# The three calls of an upload, from the asking to the certainty, with curl alone:
#
#   cargo run -- dev                      # in another terminal
#   examples/three-calls.sh [SERVICE]     # http://127.0.0.1:3000 if it is not given
#
# In an application the first and the third call are your back end's, the second is the browser's.
set -euo pipefail

service=${1:-http://127.0.0.1:3000}
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

# POST a JSON body; prints the answer, and ends the script unless it has the status that is expected.
post() {
  local path=$1 expected=$2 body=$3 status
  status=$(curl -sS -o "$work/answer" -w '%{http_code}' "$service$path" \
    -H 'content-type: application/json' -d "$body")
  cat "$work/answer"
  [[ $status == "$expected" ]] || { echo "$path answered $status, not $expected" >&2; exit 1; }
}

# The first value of this name in an answer: enough for flat JSON. Use a parser of JSON in earnest.
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

echo '   (and if it had to be a byte longer?)'
answer=$(post /upload/verify 409 "{\"key\":\"$key\",\"size\":$((size + 1))}")
echo "   $(member code "$answer"): $(member detail "$answer")"

echo '   (several at once, of which one is nobody'\''s)'
answer=$(post /upload/verify 200 "{\"keys\":[\"$key\",\"secret.txt\"]}")
[[ $answer == *'"status":200'*'"status":404'* ]]
echo '   one is there, of the other nothing is said'
