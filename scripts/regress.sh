#!/usr/bin/env bash
# Runs PostgreSQL's own regression suite, from the source package of the version
# that is installed, on a direct connection to a leader and through lsnproxy in
# front of the same kind of cluster. Prints what each test did in each run.
# Fails if a test that passes on a direct connection fails through the proxy in a
# way that docs/regress.md does not explain.
#
#   scripts/regress.sh                 all runs of all tests
#   scripts/regress.sh TEST...         only these, behind test_setup
#   RUNS="direct proxy" scripts/...    only these runs
#
# The runs, each on a cluster of its own with two followers:
#   direct   the leader, tests in parallel as the schedule says
#   alone    the leader, one test at a time
#   proxy    lsnproxy as it comes, tests in parallel
#   serial   lsnproxy as it comes, one test at a time
#   crowded  lsnproxy with four connections per server, one test at a time, each
#            beside other clients that take and leave the same connections
#
# What it makes stays in bin/regress: the results of each run in results/RUN.
set -euo pipefail
cd "$(dirname "$0")/.."

top=$PWD/bin/regress
read -ra runs <<<"${RUNS:-direct alone proxy serial crowded}"

say() { echo "regress: $*" >&2; }
die() { say "$*"; exit 1; }

# package is the server's package and version, such as postgresql-15=15.18-0+deb12u1.
package() {
	command -v apt-get >/dev/null || die "the suite comes from Debian's source package, and there is no apt-get here"
	local name
	name=$(dpkg-query -S "$bin/postgres" | cut -d: -f1) || die "$bin/postgres is of no package, so its sources are not known"
	dpkg-query -W -f '${Package}=${Version}\n' "$name"
}

# fetch puts the suite and the library that it loads into $top/suite. It asks the
# system's own archives, which may be set up without sources: so from lists of
# its own, in a folder of its own. Nothing of the system is changed.
fetch() {
	local server version work f
	server=$(package) version=${server#*=}
	[ "$(cat "$top/suite/version" 2>/dev/null)" != "$server" ] || return 0
	scripts/install.sh gcc sources
	say "fetching the sources of $server"
	rm -rf "$top/suite" "$top/fetch"
	work=$top/fetch
	mkdir -p "$work"/{lists,state/lists/partial,cache/archives/partial}
	for f in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
		[ ! -f "$f" ] || sed -n 's/^deb /&/p; s/^deb /deb-src /p' "$f" >>"$work/lists/lines.list"
	done
	for f in /etc/apt/sources.list.d/*.sources; do
		[ ! -f "$f" ] || sed 's/^Types:.*/Types: deb deb-src/' "$f" >"$work/lists/${f##*/}"
	done
	(
		cd "$work"
		apt() {
			apt-get -q -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/lists" -o Dir::State="$work/state" \
				-o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root "$@" >&2
		}
		apt update
		apt source "$server"
		# The headers without what else the package wants installed.
		apt download "postgresql-server-dev-$major=$version"
		dpkg-deb -x postgresql-server-dev-*.deb dev
	)
	cp -r "$work"/postgresql-*/src/test/regress "$top/suite"
	gcc -O2 -fPIC -shared -fwrapv -fno-strict-aliasing -I "$work/dev/usr/include/postgresql/$major/server" \
		-o "$top/suite/regress.so" "$top/suite/regress.c"
	cp "$library"/{autoinc,refint}.so "$top/suite" # of contrib, which the suite uses too
	rm -rf "$work"
	echo "$server" >"$top/suite/version"
}

# run RUN TEST...: one run, which leaves its results in $top/results/RUN. The
# servers read and write files there, as another user if this is root.
run() {
	local name=$1 shared
	shift
	shared=$(mktemp -d)
	chmod 755 "$shared"
	cp -r "$top/suite" "$shared"
	mkdir -m 777 "$shared/out" "$shared/out/results"
	rm -rf "$top/results/$name"
	mkdir -p "$top/results"
	local proxy=() with=() which=(--schedule="$shared/suite/parallel_schedule")
	[ $# -eq 0 ] || which=(test_setup "$@")
	case $name in
	direct | proxy) ;;
	alone | serial) with=(--max-connections=1) ;;
	crowded) with=(--max-connections=1 --launcher="$PWD/scripts/regress.sh beside") proxy=(--set pool.size=4) ;;
	*) die "do not know the run $name" ;;
	esac
	say "$name: $*"
	bin/lsnproxy demo --pg-bin "$bin" --set listen=127.0.0.1:0 --set http=127.0.0.1:0 "${proxy[@]}" -- \
		"$PWD/scripts/regress.sh" inside "$name" "$regress" --bindir="$bin" --dlpath="$shared/suite" \
		--inputdir="$shared/suite" --outputdir="$shared/out" --no-locale "${with[@]}" "${which[@]}" >"$shared/out/log" ||
		say "$name: not all passed, or it ended early"
	mv "$shared/out" "$top/results/$name"
	rm -rf "$shared"
}

# inside RUN COMMAND...: runs in the environment that the demo makes.
inside() {
	local name=$1
	shift
	case $name in
	direct | alone) # postgres://postgres@HOST:PORT/postgres...
		PGHOST=${LSNPROXY_LEADER#*@} PGHOST=${PGHOST%%:*}
		PGPORT=${LSNPROXY_LEADER##*:} PGPORT=${PGPORT%%/*}
		;;
	esac
	local status=0
	"$@" || status=$?
	# Into the log, behind what pg_regress has printed: what the proxy did.
	curl -s "http://$LSNPROXY_HTTP/metrics" | grep '^lsnproxy_' || true
	return "$status"
}

# beside PSQL ARG...: runs psql beside clients that log in just like it, and so
# use the same server connections as fast as they can get them.
beside() {
	local pgbench others status=0 script
	script=$(mktemp)
	cat >"$script" <<-'END'
		SELECT 1;
		BEGIN;
		SET LOCAL search_path = pg_catalog;
		SELECT 2;
		COMMIT;
		\sleep 2 ms
	END
	pgbench=$(dirname "$1")/pgbench
	"$pgbench" -n -c 3 -T 3600 -M prepared -f "$script" regression >/dev/null 2>&1 &
	others=$!
	"$@" || status=$?
	kill "$others" 2>/dev/null || true
	wait "$others" 2>/dev/null || true
	rm "$script"
	exit "$status"
}

# outcomes RUN: "RUN TEST OUTCOME" for each test, from what pg_regress has printed.
# A failure is known where a line | `TEST` | ... RUN ... | of docs/regress.md explains it.
outcomes() {
	local run=$1 test outcome
	sed -nE 's/^(test)? +([^ ]+) +\.\.\. (ok|FAILED|failed).*/\2 \3/p' "$top/results/$run/log" | while read -r test outcome; do
		[ "$outcome" = ok ] || outcome=FAILED
		if [ "$outcome" = FAILED ] && grep -qE "^\| \`$test\` \|[^|]*\`$run\`" docs/regress.md; then
			outcome=known
		fi
		echo "$run $test $outcome"
	done
}

# report prints the table and fails on a difference that is not known.
report() {
	local name
	for name in "${runs[@]}"; do outcomes "$name"; done | awk -v runs="${runs[*]}" '
		!($2 in seen) { seen[$2] = 1; order[++n] = $2 }
		{ got[$1, $2] = $3 }
		END {
			columns = split("test " runs, column, " ")
			for (c = 1; c <= columns; c++) printf c == 1 ? "%-26s" : " %-8s", column[c]
			print ""
			for (i = 1; i <= n; i++) {
				direct = proxy = 1
				printf "%-26s", order[i]
				for (c = 2; c <= columns; c++) {
					outcome = (column[c], order[i]) in got ? got[column[c], order[i]] : "missing"
					printf " %-8s", outcome
					passed[c] += outcome == "ok"
					if (column[c] == "direct" || column[c] == "alone") direct = direct && outcome == "ok"
					else proxy = proxy && (outcome == "ok" || outcome == "known")
				}
				differs = direct && !proxy
				differing += differs
				print differs ? " DIFFERS" : ""
			}
			printf "%-26s", "passed of " n
			for (c = 2; c <= columns; c++) printf " %-8s", passed[c]
			print ""
			exit n == 0 || differing > 0
		}'
}

case ${1:-} in
inside | beside)
	"$@"
	exit
	;;
esac

scripts/install.sh postgres
bin=$(printf '%s\n' /usr/lib/postgresql/*/bin/postgres | sort -V | tail -n 1)
bin=${bin%/*}
library=$("$bin/pg_config" --pkglibdir)
major=$("$bin/pg_config" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')
regress=$library/pgxs/src/test/regress/pg_regress
[ -x "$regress" ] || die "no $regress here"

fetch
for name in "${runs[@]}"; do
	run "$name" "$@"
done
report
