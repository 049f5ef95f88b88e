#!/usr/bin/env bash
# Installs what tests, demo and benches run on, through the system's package
# manager (apt-get or dnf): only what is missing, so a second run does nothing.
# Works as root, or through sudo.
#
#   scripts/install.sh WHAT...
#     gcc         and the C library's headers: the race detector is linked in C
#     postgres    servers, clients and pgbench
#     pgbouncer   a peer to measure against
#     sources     what unpacks the system's source packages
set -euo pipefail

programs="initdb postgres pg_basebackup pg_rewind psql pgbench"
oldest=14
wanted="PostgreSQL means $oldest or newer, with $programs"

say() { echo "install: $*" >&2; }
die() { say "$*"; exit 1; }

root() { # runs a command as root
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "not root and no sudo here; as root, run: $*"
	fi
}

has_gcc() { echo '#include <pthread.h>' | gcc -E - >/dev/null 2>&1; }

# has_postgres: some folder holds all the programs, of a version we support.
# Debian keeps them out of PATH, one folder for each version.
has_postgres() {
	local dir p version
	local IFS=:
	for dir in $PATH /usr/lib/postgresql/*/bin /usr/pgsql-*/bin; do
		for p in ${programs// /:}; do
			[ -x "$dir/$p" ] || continue 2
		done
		version=$("$dir/postgres" --version) # postgres (PostgreSQL) 15.18 ...
		version=${version#*) }
		[ "${version%%[!0-9]*}" -ge "$oldest" ] && return
	done
	return 1
}

has_sources() { command -v dpkg-source >/dev/null; }

has_pgbouncer() { PATH=$PATH:/usr/sbin command -v pgbouncer >/dev/null; }

apt_install() {
	say "apt-get install $*"
	root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >&2
}

apt_sources() { apt_install dpkg-dev xz-utils; }
apt_gcc() { apt_install gcc libc6-dev; }

# Debian's postgresql creates a cluster called main and starts it, at once and at
# every boot. We make clusters of our own, so it is told not to, for as long as
# the installation takes: the setting is the owner's and is put back.
apt_postgres() {
	local conf=/etc/postgresql-common/createcluster.conf
	apt_install postgresql-common
	root cp -p $conf $conf.before
	# shellcheck disable=SC2064 # conf is local: expand now
	trap "root mv $conf.before $conf" EXIT
	echo 'create_main_cluster = false' | root tee -a $conf >/dev/null
	apt_install postgresql
}

# Debian's pgbouncer starts a service on port 6432. The benches start their own.
apt_pgbouncer() {
	apt_install pgbouncer
	if [ -d /run/systemd/system ]; then
		root systemctl disable --now pgbouncer
	else
		root service pgbouncer stop || say "pgbouncer was not running"
	fi
}

dnf_install() {
	say "dnf install $*"
	root dnf install -y -q "$@" >&2
}
dnf_gcc() { dnf_install gcc glibc-devel; }
dnf_postgres() { dnf_install postgresql postgresql-server postgresql-contrib; }
dnf_pgbouncer() { dnf_install pgbouncer; }
dnf_sources() { die "source packages are taken with apt-get only"; }

[ $# -gt 0 ] || die "say what: gcc, postgres, pgbouncer, sources"
missing=()
for what in "$@"; do
	case $what in
	gcc | postgres | pgbouncer | sources) "has_$what" || missing+=("$what") ;;
	*) die "do not know $what: want gcc, postgres, pgbouncer or sources" ;;
	esac
done
[ ${#missing[@]} -gt 0 ] || exit 0

say "missing: ${missing[*]}"
if command -v apt-get >/dev/null; then
	manager=apt
	root apt-get update -q >&2
elif command -v dnf >/dev/null; then
	manager=dnf
else
	die "neither apt-get nor dnf here: install ${missing[*]} by hand ($wanted)"
fi
for what in "${missing[@]}"; do
	"${manager}_$what"
	"has_$what" || die "$what is still missing ($wanted)"
	say "$what is there"
done
