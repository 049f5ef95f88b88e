<?php
// The compatibility program for PHP's pgsql extension.
error_reporting(E_ALL & ~E_WARNING); // errors are asked for

function name(string $of): string { return (getenv('COMPAT_NAME') ?: 'compat') . "_$of"; }

// Tries a feature and prints a line for it; what is seen must be the same on every run.
function feature(string $what, callable $attempt): void {
    try {
        $line = "$what ok " . implode(' ', (array) $attempt());
    } catch (Throwable $e) {
        $line = "$what FAIL {$e->getMessage()} (line {$e->getLine()})";
    }
    echo trim(preg_replace('/\s+/', ' ', $line)), "\n";
}

function equal(mixed $seen, mixed $wanted): void {
    if ($seen !== $wanted) {
        throw new Exception(json_encode($seen) . ' instead of ' . json_encode($wanted));
    }
}

function open(string $more = '') { return pg_connect($more ?: ' ', PGSQL_CONNECT_FORCE_NEW); }

// result runs a statement in the one way that tells the SQLSTATE of an error.
function result($c, string $sql, ?array $args = null) {
    $args === null ? pg_send_query($c, $sql) : pg_send_query_params($c, $sql, $args);
    for ($last = null; $r = pg_get_result($c); $last = $r);
    return $last;
}

function state($c, string $sql): string { return pg_result_error_field(result($c, $sql), PGSQL_DIAG_SQLSTATE) ?? 'no error'; }

function run($c, string $sql, ?array $args = null) {
    $r = result($c, $sql, $args);
    if ($e = pg_result_error($r)) {
        throw new Exception("$sql: $e");
    }
    return $r;
}

function value($c, string $sql, ?array $args = null): ?string { return pg_fetch_result(run($c, $sql, $args), 0, 0); }

function table($c, string $of, string $columns): string {
    $t = name($of);
    run($c, "DROP TABLE IF EXISTS $t; CREATE TABLE $t ($columns)");
    return $t;
}

feature('reads', function () {
    [$c, $t] = [open(), name('reads')];
    for ($i = 0; $i < 50; $i++) {
        run($c, "UPDATE $t SET n = \$1 WHERE id = 1", [$i]);
        equal(value($c, "SELECT n FROM $t WHERE id = \$1", [1]), "$i");
    }
});

feature('connect', function () {
    $c = open();
    $missing = open('dbname=there_is_none') === false ? 'refused' : 'accepted';
    return [value($c, "SELECT current_user || ' ' || current_database()"), pg_version($c)['server'], pg_ping($c), $missing];
});

feature('types', function () {
    $c = open();
    $t = table($c, 'types', 'b bool, l int8, f float8, n numeric, t text, y bytea, z timestamptz, j jsonb, a int[], nothing text');
    $row = ['t', '-9223372036854775808', '0.1', '12345678901234567890.123456789', "żółć \"' \\ 日本", '\x0001ff',
        '2024-02-29 13:14:15.678901+00', '{"a": [1, null]}', '{1,-2,NULL}', null];
    run($c, "SET TimeZone = 'UTC'");
    run($c, "INSERT INTO $t VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10)", $row);
    $r = run($c, "SELECT * FROM $t");
    equal(pg_fetch_row($r), $row);
    return [pg_unescape_bytea(pg_fetch_result($r, 0, 'y')) === "\0\1\xff", pg_field_type($r, 3), pg_client_encoding($c)];
});

feature('prepared', function () {
    $c = open();
    $t = table($c, 'prepared', 'id int, v text');
    pg_prepare($c, 'put', "INSERT INTO $t VALUES (\$1, \$2)");
    pg_prepare($c, 'get', "SELECT v FROM $t WHERE id = \$1");
    for ($i = 0; $i < 20; $i++) {
        pg_execute($c, 'put', [$i, name('v') . $i]);
        equal(pg_fetch_result(pg_execute($c, 'get', [$i]), 0, 0), name('v') . $i);
    }
    $twice = pg_send_prepare($c, 'get', 'SELECT 1') ? pg_result_error_field(pg_get_result($c), PGSQL_DIAG_SQLSTATE) : '';
    pg_get_result($c);
    return [$twice, value($c, "SELECT count(*) FROM $t")];
});

feature('transaction', function () {
    [$c, $other] = [open(), open()];
    $t = table($c, 'transaction', 'id int primary key');
    $count = "/* lsnproxy: consistency=strong */ SELECT count(*) FROM $t";
    run($c, 'BEGIN');
    run($c, "INSERT INTO $t VALUES (1)");
    equal([value($c, $count), value($other, $count)], ['1', '0']);
    run($c, 'ROLLBACK');
    equal(value($c, $count), '0');
    run($c, 'BEGIN');
    run($c, "INSERT INTO $t VALUES (1)");
    run($c, 'SAVEPOINT s');
    $inner = state($c, "INSERT INTO $t VALUES (1)");
    run($c, 'ROLLBACK TO s');
    run($c, 'COMMIT');
    equal(value($other, $count), '1');
    run($c, 'BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY');
    equal([value($c, $count), value($c, 'SHOW transaction_isolation')], ['1', 'serializable']);
    $refused = state($c, "INSERT INTO $t VALUES (2)");
    $status = pg_transaction_status($c);
    run($c, 'ROLLBACK');
    return [$inner, $refused, $status, pg_transaction_status($c)];
});

feature('error', function () {
    $c = open();
    $t = table($c, 'error', 'id int primary key');
    $states = [];
    foreach (['SELEC 1', 'SELECT * FROM there_is_none', 'SELECT 1/0', "SELECT 'x'::int", "INSERT INTO $t VALUES (1), (1)"] as $sql) {
        $states[] = state($c, $sql);
        equal(value($c, "SELECT 'fine'"), 'fine');
    }
    run($c, 'BEGIN');
    array_push($states, state($c, 'SELECT 1/0'), state($c, 'SELECT 1'));
    run($c, 'ROLLBACK');
    run($c, "DO $$ BEGIN RAISE NOTICE 'noticed'; END $$");
    return [...$states, pg_last_notice($c)];
});

feature('cursor', function () {
    $c = open();
    run($c, 'BEGIN');
    run($c, 'DECLARE c SCROLL CURSOR FOR SELECT generate_series(1, 1000)');
    for ($rows = 0; $n = pg_num_rows(run($c, 'FETCH 90 FROM c')); $rows += $n);
    $back = value($c, 'FETCH ABSOLUTE 7 FROM c');
    run($c, 'DECLARE held CURSOR WITH HOLD FOR SELECT generate_series(1, 10)');
    run($c, 'COMMIT');
    $held = pg_num_rows(run($c, 'FETCH ALL FROM held'));
    run($c, 'CLOSE held');
    return [$rows, $back, $held];
});

feature('copy', function () {
    $c = open();
    $t = table($c, 'copy', 'id int, v text');
    $lines = array_map(fn ($i) => "$i\trow $i\n", range(0, 999));
    equal(pg_copy_from($c, $t, $lines), true);
    equal(pg_copy_to($c, $t), $lines);
    pg_query($c, "COPY $t FROM STDIN");
    pg_put_line($c, "no number\tx\n");
    pg_put_line($c, "\\.\n");
    $bad = pg_end_copy($c) ? 'taken' : 'refused';
    return [$bad, state($c, 'COPY there_is_none TO STDOUT'), value($c, "SELECT count(*) FROM $t")];
});

feature('cancel', function () {
    $c = open();
    pg_send_query($c, 'SELECT pg_sleep(30)');
    usleep(300000);
    pg_cancel_query($c); // takes the result too
    equal(value($c, "SELECT 'fine'"), 'fine');
    run($c, 'BEGIN; SET LOCAL statement_timeout = 50');
    $slow = state($c, 'SELECT pg_sleep(30)');
    run($c, 'ROLLBACK');
    return [$slow, value($c, "SELECT 'fine'")];
});

feature('notify', function () {
    [$c, $other] = [open(), open()];
    run($c, 'LISTEN ' . name('channel'));
    run($other, 'NOTIFY ' . name('channel') . ", 'hello'");
    for ($i = 0; $i < 1000 && !($n = pg_get_notify($c)); $i++) {
        usleep(10000);
    }
    equal($n['message'] ?? null, name('channel'));
    run($c, 'UNLISTEN *');
    return $n['payload'];
});

feature('settings', function () {
    $c = open();
    [$t, $mine] = [table($c, 'settings', 'v text'), name('application')];
    run($c, "SET application_name = $mine; SET TimeZone = 'Asia/Tokyo'");
    for ($i = 0; $i < 20; $i++) {
        run($c, "INSERT INTO $t VALUES (current_setting('application_name'))");
        equal(value($c, 'SHOW application_name'), $mine);
        equal(value($c, 'SELECT current_setting($1)', ['TimeZone']), 'Asia/Tokyo');
    }
    equal(pg_parameter_status($c, 'TimeZone'), 'Asia/Tokyo');
    run($c, "BEGIN; SET LOCAL TimeZone = 'UTC'; COMMIT");
    run($c, "BEGIN; SET TimeZone = 'UTC'; ROLLBACK");
    equal(value($c, 'SHOW TimeZone'), 'Asia/Tokyo');
    equal(value($c, "SELECT count(*) FROM $t WHERE v = \$1", [$mine]), '20');
    pg_set_client_encoding($c, 'LATIN1');
    equal(bin2hex(value($c, "SELECT chr(252)")), 'fc');
    run($c, 'RESET ALL');
    return [pg_client_encoding($c), pg_parameter_status($c, 'application_name')];
});

feature('largeobject', function () {
    $c = open();
    run($c, 'BEGIN');
    $oid = pg_lo_create($c);
    $lo = pg_lo_open($c, $oid, 'w+');
    pg_lo_write($lo, 'large object');
    pg_lo_seek($lo, 6, PGSQL_SEEK_SET);
    $seen = pg_lo_read($lo, 6);
    pg_lo_close($lo);
    equal(pg_lo_unlink($c, $oid), true);
    run($c, 'COMMIT');
    return $seen;
});

feature('batch', function () {
    $c = open();
    $t = table($c, 'batch', 'id int primary key');
    $failed = state($c, "INSERT INTO $t VALUES (1); INSERT INTO $t VALUES (1); INSERT INTO $t VALUES (2)");
    pg_send_query($c, 'SELECT 1; SELECT 2, 3; SELECT 4 WHERE false');
    for ($counts = []; $r = pg_get_result($c); $counts[] = pg_num_fields($r));
    return [$failed, ...$counts, value($c, "SELECT count(*) FROM $t")];
});

// PDO prepares by the protocol and lets go by DEALLOCATE.
feature('PDO', function () {
    $dsn = sprintf('pgsql:host=%s;port=%s;dbname=%s', getenv('PGHOST'), getenv('PGPORT'), getenv('PGDATABASE'));
    $c = new PDO($dsn, getenv('PGUSER'), null, [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
    $t = name('pdo');
    $c->exec("DROP TABLE IF EXISTS $t; CREATE TABLE $t (id serial primary key, v text)");
    for ($i = 0; $i < 20; $i++) {
        $s = $c->prepare("INSERT INTO $t (v) VALUES (:v)");
        $s->execute(['v' => name('v') . $i]);
        $get = $c->prepare("SELECT v FROM $t WHERE id = ?");
        $get->execute([$i + 1]);
        equal($get->fetchColumn(), name('v') . $i);
        $s = $get = null;
    }
    $id = $c->lastInsertId(); // lastval()
    try {
        $c->beginTransaction();
        $c->exec("INSERT INTO $t VALUES (1, 'again')");
    } catch (PDOException $e) {
        $state = $e->getCode();
        $c->rollBack();
    }
    return [$id, $state, $c->query("SELECT count(*) FROM $t")->fetchColumn()];
});
