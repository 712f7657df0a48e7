#!/usr/bin/env bash
# The life of a file, with curl: grant, send, verify, commit, download, delete. The service needs a policy with
# `pending`, `download` and `delete`, and so an API key:
#
#   printf '[policies.default]\npending = true\ndownload = true\ndelete = true\n' > policies.toml
#   cargo run -- api-key web              # put the entry that it prints into keys.toml
#   AUTH_MODE=api-key API_KEYS_FILE=keys.toml UPLOAD_POLICIES_FILE=policies.toml cargo run -- dev
#   API_KEY=presignd_… examples/life.sh [SERVICE]     # in another terminal
#
# In an application, your back end commits and deletes, and the browser sends and downloads.
set -euo pipefail

service=${1:-http://127.0.0.1:3000}
: "${API_KEY:?the key that \`presignd api-key\` printed}"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

# post PATH STATUS BODY: prints the answer, and exits if it has another status.
post() {
  local path=$1 expected=$2 body=$3 status
  # The key is no argument, which other users of the machine could see.
  status=$(curl -sS -o "$work/answer" -w '%{http_code}' "$service$path" \
    -H @<(printf 'authorization: Bearer %s\n' "$API_KEY") -H 'content-type: application/json' -d "$body")
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

echo '1. Grant: may I upload hello.txt?'
grant=$(post /upload/presigned-url 201 \
  "{\"filename\":\"hello.txt\",\"contentType\":\"text/plain\",\"size\":$size}")
key=$(member key "$grant")
echo "   yes, as $key"

echo '2. Send: here it is.'
# The headers of the grant, one on each line.
headers=${grant#*\"headers\":\{}
headers=${headers%%\}*}
headers=${headers//\",\"/$'\n'}
headers=${headers//\":\"/: }
printf '%s\n' "${headers//\"/}" > "$work/headers"
curl -sS --fail-with-body -T "$work/hello.txt" -H @"$work/headers" "$(member url "$grant")"

echo '3. Verify: did it arrive?'
answer=$(post /upload/verify 200 "{\"key\":\"$key\",\"wait\":5}")
echo "   yes: $(member size "$answer") bytes of $(member contentType "$answer")"

echo '   (may it be downloaded?)'
answer=$(post /download/presigned-url 409 "{\"key\":\"$key\"}")
echo "   no: $(member code "$answer")"

echo '4. Commit: it counts from now on.'
post /upload/commit 200 "{\"key\":\"$key\"}" > "$work/committed"

echo '5. Download: what does it say?'
download=$(post /download/presigned-url 201 "{\"key\":\"$key\",\"filename\":\"hello.txt\"}")
url=$(member url "$download")
curl -sS --fail-with-body -o "$work/fetched.txt" "$url"
cmp "$work/hello.txt" "$work/fetched.txt"
echo "   $(cat "$work/fetched.txt")"
[[ $(curl -sS --fail-with-body -r 0-4 "$url") == Hello ]]

echo '6. Delete: once, and once more.'
post /upload/delete 200 "{\"key\":\"$key\"}" > "$work/deleted"
post /upload/delete 200 "{\"key\":\"$key\"}" > "$work/deleted"
answer=$(post /upload/verify 404 "{\"key\":\"$key\"}")
echo "   $(member code "$answer")"
