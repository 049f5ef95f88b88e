#!/usr/bin/env bash
# Two services, in Go and in Python, share notes in one database. A client writes
# through one and reads through the other, with the token and without. Started by
# `make example`, in a demo whose followers are half a second behind.
set -euo pipefail
cd "$(dirname "$0")/.."

psql -qc "CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY, text text)"
bin/examples/go -listen 127.0.0.1:18081 &
services=$!
/usr/bin/python3 examples/python/service.py --listen 127.0.0.1:18082 &
services="$services $!"
cookies=$(mktemp)
trap 'kill $services 2>/dev/null; wait $services 2>/dev/null || true; rm -f "$cookies"' EXIT
go=http://127.0.0.1:18081/notes python=http://127.0.0.1:18082/notes
for url in $go $python; do
	curl -s --retry 50 --retry-delay 0 --retry-connrefused -o /dev/null "$url"
done

failed=0
# sees URL WANTED WHAT CURL-ARGUMENTS...: says what a client reads, and whether it should.
sees() {
	local url=$1 wanted=$2 what=$3 got
	shift 3
	got=$(curl -s "$@" "$url")
	echo "$what: $got"
	[ -z "$wanted" ] || [[ $got == *"\"$wanted\""* ]] || { echo "  wanted: $wanted"; failed=1; }
}

for writer in $go $python; do
	reader=$([ "$writer" = "$go" ] && echo $python || echo $go)
	note="written to ${writer#http://}"
	token=$(curl -s -D - -o /dev/null -c "$cookies" -d "$note" "$writer" | tr -d '\r' | sed -n 's/^Lsnproxy-Token: //Ip')
	echo "$note, token $token"
	sees "$reader" "" "  the other service, without the token" # and it may be missing
	sees "$reader" "$note" "  the other service, token in a header" -H "Lsnproxy-Token: $token"
	sees "$reader" "$note" "  the other service, token in a cookie" -b "$cookies"
done
exit $failed
