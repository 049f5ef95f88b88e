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
#     python      psycopg2, psycopg, asyncpg and SQLAlchemy for the system's own Python
#     jdbc        PostgreSQL's JDBC driver and a JDK
#     node        Node.js and npm
#     php         with its extension for PostgreSQL
#     ruby        with pg
#     perl        DBD::Pg
#     patroni     Patroni, and etcd for it
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
has_python() { /usr/bin/python3 -c 'import psycopg2, psycopg, asyncpg, sqlalchemy' 2>/dev/null; }
has_jdbc() { command -v javac >/dev/null && [ -e /usr/share/java/postgresql.jar ]; }
has_node() { command -v node >/dev/null && command -v npm >/dev/null; }
has_php() { command -v php >/dev/null && php -r 'exit(extension_loaded("pgsql") ? 0 : 1);'; }
has_ruby() { command -v ruby >/dev/null && ruby -e 'require "pg"' 2>/dev/null; }
has_perl() { perl -MDBD::Pg -e 1 2>/dev/null; }
has_patroni() { command -v patroni >/dev/null && command -v etcd >/dev/null; }
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

apt_python() { apt_install python3-psycopg2 python3-psycopg python3-asyncpg python3-sqlalchemy; }
apt_jdbc() { apt_install default-jdk-headless libpostgresql-jdbc-java; }
apt_node() { apt_install nodejs npm; }
apt_php() { apt_install php-cli php-pgsql; }
apt_ruby() { apt_install ruby ruby-pg; }
apt_perl() { apt_install libdbd-pg-perl; }
apt_patroni() { apt_install patroni python3-etcd etcd-server; }

dnf_install() {
	say "dnf install $*"
	root dnf install -y -q "$@" >&2
}
dnf_gcc() { dnf_install gcc glibc-devel; }
dnf_postgres() { dnf_install postgresql postgresql-server postgresql-contrib; }
dnf_pgbouncer() { dnf_install pgbouncer; }
dnf_sources() { die "source packages are taken with apt-get only"; }
dnf_python() { dnf_install python3-psycopg2 python3-psycopg3 python3-asyncpg python3-sqlalchemy; }
dnf_jdbc() { dnf_install java-devel postgresql-jdbc; }
dnf_node() { dnf_install nodejs npm; }
dnf_php() { dnf_install php-cli php-pgsql; }
dnf_ruby() { dnf_install ruby rubygem-pg; }
dnf_perl() { dnf_install perl-DBD-Pg; }
dnf_patroni() { dnf_install patroni etcd; }

known="gcc postgres pgbouncer sources python jdbc node php ruby perl patroni"
[ $# -gt 0 ] || die "say what: $known"
missing=()
for what in "$@"; do
	case " $known " in
	*" $what "*) "has_$what" || missing+=("$what") ;;
	*) die "do not know $what: want some of $known" ;;
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
