#!/bin/sh
# Fetches the SQL of PostgreSQL's regression tests from Debian's source archive
# into the folder given: ./corpus.sh DIR
set -eu
dir=$(mkdir -p "$1" && cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial"
echo "deb-src http://deb.debian.org/debian bookworm main" >"$work/sources.list"
apt() {
	apt-get -qq -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=- \
		-o Dir::State::Lists="$work/lists" -o APT::Sandbox::User=root "$@"
}
apt update
(cd "$work" && apt source --download-only postgresql-15)
tar -C "$dir" --strip-components=1 --wildcards -xjf "$work"/postgresql-15_*.orig.tar.bz2 '*.sql'
echo "$(find "$dir" -name '*.sql' | wc -l) files in $dir"
