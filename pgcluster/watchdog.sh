# Ends a cluster when the process that started it is gone, whatever ended that:
# only it holds the other end of this script's standard input.
#
# Arguments: a folder to remove at the end, or nothing; then the nodes' folders,
# which are removed too unless the word "keep" was read.
trap '' HUP INT TERM
own=$1
shift
keep=
while read -r word; do
	keep=$word
done

# Every program of the cluster runs in its node's folder or in data below it,
# even if somebody has removed that. A process that has ended but was not waited
# for has no folder any more.
signal_all() {
	found=
	for process in /proc/[0-9]*; do
		read -r name 2>/dev/null <"$process/comm" || continue
		case $name in
		*postgres* | initdb | cp) folder=$(readlink "$process/cwd") ;;
		*) continue ;;
		esac
		# initdb would remove the lock file that is read below.
		[ "$name" = initdb ] && with=KILL || with=$signal
		for node; do
			case $folder in
			"$node" | "$node (deleted)" | "$node/data" | "$node/data (deleted)")
				kill -"$with" "${process#/proc/}" 2>/dev/null
				found=1
				;;
			esac
		done
	done
}

# QUIT is PostgreSQL's immediate stop: it gives its shared memory back, which
# KILL cannot.
signal=QUIT
round=0
while signal_all "$@"; [ "$found" ]; do
	round=$((round + 1))
	[ $round -gt 100 ] && signal=KILL
	if [ $round -gt 500 ]; then
		echo "servers in $* do not end" >&2
		exit 1
	fi
	sleep 0.02
done

[ "$keep" ] && exit 0

# A server that was killed, or that initdb had started, left its System V segment
# behind. Its number is in line 7 of the lock file, which such a server leaves too.
for node; do
	if [ -f "$node/data/postmaster.pid" ]; then
		segment=$(sed -n '7s/^ *[0-9][0-9]* *\([0-9][0-9]*\) *$/\1/p' "$node/data/postmaster.pid")
		[ "$segment" ] && ipcrm -m "$segment" 2>/dev/null
	fi
done
rm -rf -- "$@"
[ -z "$own" ] || rm -rf -- "$own"
