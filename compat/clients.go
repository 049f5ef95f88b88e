package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// client is a way for applications to speak to PostgreSQL, and the program that
// tries it. In both commands FOLDER stands for the folder of the programs in
// scripting languages and BUILT for the folder of the compiled ones.
type client struct {
	name    string
	version string // a shell command: makes the client ready, prints its version, fails where it is missing
	program []string
	// alone: two copies at once need more connections at the same moment than the
	// small pool has, so there one runs alone.
	alone bool
}

// clients in the order of the table.
var clients = []client{
	{
		name:    "psql",
		version: postgresVersion("psql"),
		program: []string{"bash", "FOLDER/shell/psql.sh"},
	},
	{
		name:    "pgbench",
		version: postgresVersion("pgbench"),
		program: []string{"bash", "FOLDER/shell/pgbench.sh"},
	},
	{
		name:    "pg_dump and pg_restore",
		version: postgresVersion("pg_dump"),
		program: []string{"bash", "FOLDER/shell/pg_dump.sh"},
		alone:   true,
	},
	{
		name:    "pgx",
		version: "go version -m BUILT/pgx | awk '$2 == \"github.com/jackc/pgx/v5\" {print $3}'",
		program: []string{"BUILT/pgx"},
	},
	{
		name:    "lib/pq",
		version: "go version -m BUILT/libpq | awk '$2 == \"github.com/lib/pq\" {print $3}'",
		program: []string{"BUILT/libpq"},
	},
	// Debian's packages are for the system's own Python; another may come first on PATH.
	{
		name:    "psycopg2",
		version: "/usr/bin/python3 -c 'import psycopg2; print(psycopg2.__version__.split()[0])'",
		program: []string{"/usr/bin/python3", "-B", "FOLDER/python/use_psycopg2.py"},
	},
	{
		name:    "psycopg",
		version: "/usr/bin/python3 -c 'import psycopg; print(psycopg.__version__)'",
		program: []string{"/usr/bin/python3", "-B", "FOLDER/python/use_psycopg.py"},
	},
	{
		name:    "asyncpg",
		version: "/usr/bin/python3 -c 'import asyncpg; print(asyncpg.__version__)'",
		program: []string{"/usr/bin/python3", "-B", "FOLDER/python/use_asyncpg.py"},
	},
	{
		name:    "SQLAlchemy",
		version: "/usr/bin/python3 -c 'import sqlalchemy; print(sqlalchemy.__version__)'",
		program: []string{"/usr/bin/python3", "-B", "FOLDER/python/use_sqlalchemy.py"},
	},
	{
		name: "JDBC",
		version: "javac -cp /usr/share/java/postgresql.jar -d BUILT/java FOLDER/java/Compat.java >&2 &&" +
			" java -jar /usr/share/java/postgresql.jar | sed -n 's/^PostgreSQL JDBC Driver //p'",
		program: []string{"java", "-cp", "/usr/share/java/postgresql.jar:BUILT/java", "Compat"},
	},
	{
		name:    "node pg",
		version: nodeVersion("pg"),
		program: []string{"node", "FOLDER/node/use-pg.mjs"},
	},
	{
		name:    "node postgres",
		version: nodeVersion("postgres"),
		program: []string{"node", "FOLDER/node/use-postgres.mjs"},
	},
	{
		name:    "PHP pgsql and PDO",
		version: "php -r 'if (!extension_loaded(\"pgsql\") || !extension_loaded(\"pdo_pgsql\")) exit(1); echo PHP_VERSION;'",
		program: []string{"php", "FOLDER/php/pgsql.php"},
	},
	{
		name:    "Ruby pg",
		version: "ruby -e 'require \"pg\"; puts PG::VERSION'",
		program: []string{"ruby", "FOLDER/ruby/pg.rb"},
	},
	{
		name:    "Perl DBD::Pg",
		version: "perl -MDBD::Pg -e 'print \"$DBD::Pg::VERSION\\n\"'",
		program: []string{"perl", "FOLDER/perl/dbd-pg.pl"},
	},
}

// postgresVersion asks one of PostgreSQL's own programs.
func postgresVersion(program string) string {
	return program + ` --version | sed 's/[^0-9]*\([0-9.]*\).*/\1/'`
}

// nodeVersion installs the packages that node's programs use, beside them, when
// that has not been done for the present package-lock.json.
func nodeVersion(module string) string {
	return "cd FOLDER/node && if ! cmp -s package-lock.json node_modules/installed; then" +
		" npm ci --ignore-scripts --no-audit --no-fund >&2 && cp package-lock.json node_modules/installed; fi &&" +
		" sed -n 's/^  \"version\": \"\\(.*\\)\",$/\\1/p' node_modules/" + module + "/package.json"
}

func names() (names []string) {
	for _, c := range clients {
		names = append(names, c.name)
	}
	return names
}

// choose picks the clients named, all of them without names.
func choose(only string) (chosen []client, err error) {
	if only == "" {
		return clients, nil
	}
	for _, name := range strings.Split(only, ",") {
		i := slices.Index(names(), name)
		if i < 0 {
			return nil, fmt.Errorf("do not know %q: want some of %s", name, strings.Join(names(), ", "))
		}
		chosen = append(chosen, clients[i])
	}
	return chosen, nil
}

// available gives the client's version.
func (c client) available(ctx context.Context, folder, built string) (string, error) {
	cmd := exec.CommandContext(ctx, "sh", "-ec", expand(c.version, folder, built))
	var out, diagnosis bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diagnosis
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, oneLine(diagnosis.String()))
	}
	if out.Len() == 0 {
		return "", fmt.Errorf("no version from: %s", c.version)
	}
	return oneLine(out.String()), nil
}

// command prepares one copy of the client's program.
func (c client) command(ctx context.Context, folder, built string) *exec.Cmd {
	var args []string
	for _, arg := range c.program {
		args = append(args, expand(arg, folder, built))
	}
	return exec.CommandContext(ctx, args[0], args[1:]...)
}

// prefix begins the names of all that one copy of the program makes.
func (c client) prefix(copied string) string {
	letters := func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}
	return "compat_" + strings.Map(letters, strings.ToLower(c.name)) + "_" + copied
}

func expand(text, folder, built string) string {
	return strings.NewReplacer("FOLDER", absolute(folder), "BUILT", absolute(built)).Replace(text)
}

// absolute makes a path one that a program finds from wherever it runs.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
