#!/usr/bin/env bash
# Runs pgbench in every workload, protocol and number of clients against the
# proxy of `lsnproxy demo`, and fails if any transaction does:
#
#   bin/lsnproxy demo -- scripts/pgbench-matrix.sh [SECONDS of each run] [SCALE]
#
# For select-only it also prints which share of the reads followers served.
set -euo pipefail
seconds=${1:-3}
scale=${2:-10}
: "${LSNPROXY_HTTP:?run this through: bin/lsnproxy demo -- $0}"
pgbench=$(command -v pgbench || ls /usr/lib/postgresql/*/bin/pgbench | tail -1)

# reads ROLE prints how many reads nodes of that role have served so far.
reads() {
	exec 3<>"/dev/tcp/${LSNPROXY_HTTP%:*}/${LSNPROXY_HTTP##*:}"
	printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
	awk -v role="role=\"$1\"" '/^lsnproxy_reads_total\{/ && index($0, role) { n += $2 } END { printf "%d", n }' <&3
	exec 3>&-
}

"$pgbench" -i -q -s "$scale"
printf '%-14s %-9s %7s %10s %12s %s\n' workload protocol clients tps failed 'reads on followers'
for workload in tpcb-like select-only simple-update; do
	for protocol in simple extended prepared; do
		for clients in 1 16 64; do
			leader=$(reads leader) follower=$(reads follower)
			out=$("$pgbench" -n -b "$workload" -M "$protocol" -c "$clients" -j 2 -T "$seconds" 2>&1) || {
				echo "$out" >&2
				exit 1
			}
			failed=$(awk -F': ' '/number of failed transactions/ { print $2 }' <<<"$out")
			tps=$(awk '/^tps = / { printf "%.0f", $3 }' <<<"$out")
			leader=$(($(reads leader) - leader)) follower=$(($(reads follower) - follower))
			share=-
			if [ "$workload" = select-only ]; then
				share=$(awk -v f="$follower" -v l="$leader" 'BEGIN { printf "%.2f%%", f + l ? 100 * f / (f + l) : 0 }')
			fi
			printf '%-14s %-9s %7d %10s %12s %s\n' "$workload" "$protocol" "$clients" "$tps" "$failed" "$share"
			case $failed in
			0\ *) ;;
			*)
				echo "transactions failed: $failed" >&2
				exit 1
				;;
			esac
		done
	done
done
