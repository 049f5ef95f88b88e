# The compatibility program for Perl's DBD::Pg.
use v5.30;
use warnings;
use utf8;
use open qw(:std :encoding(UTF-8));
use DBI qw(:sql_types);
use DBD::Pg qw(:pg_types :async);

$| = 1;

sub name { ($ENV{COMPAT_NAME} // 'compat') . "_$_[0]" }

# Tries a feature and prints a line for it; what is seen must be the same on every run.
sub feature {
    my ($what, $attempt) = @_;
    my $line = eval { join ' ', $what, 'ok', grep { defined } $attempt->() } // "$what FAIL $@";
    say $line =~ s/\s+/ /gr =~ s/ $//r;
}

sub equal {
    my ($seen, $wanted) = map { $_ // 'undef' } @_;
    die "$seen instead of $wanted" if $seen ne $wanted;
}

sub connection {
    my %more = (RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, @_);
    DBI->connect('dbi:Pg:' . (delete $more{dsn} // ''), $ENV{PGUSER}, '', \%more);
}

sub value { my ($c, $sql, @args) = @_; ($c->selectrow_array($sql, undef, @args))[0] }

sub table {
    my ($c, $of, $columns) = @_;
    my $t = name($of);
    $c->do("DROP TABLE IF EXISTS $t");
    $c->do("CREATE TABLE $t ($columns)");
    $t;
}

sub state_of { my ($attempt) = @_; eval { $attempt->(); 1 } ? 'no error' : $DBI::state }

feature reads => sub {
    my ($c, $t) = (connection(), name('reads'));
    for my $i (0 .. 49) {
        $c->do("UPDATE $t SET n = ? WHERE id = 1", undef, $i);
        equal(value($c, "SELECT n FROM $t WHERE id = ?", 1), $i);
    }
    ();
};

feature connect => sub {
    my $c = connection();
    my $missing = state_of(sub { connection(dsn => 'dbname=there_is_none') });
    (value($c, "SELECT current_user || ' ' || current_database()"), $c->{pg_server_version}, $c->ping, $missing);
};

feature types => sub {
    my $c = connection();
    my $t = table($c, 'types', 'b bool, l int8, f float8, n numeric, t text, y bytea, z timestamp, a int[], ta text[], nothing text');
    my @row = (1, '-9223372036854775808', '0.1', '12345678901234567890.123456789', "żółć \"' \\ 日本", "\0\1\xff",
        '2024-02-29 13:14:15.678901', [1, -2, undef], ['a', 'b,c', 'd"'], undef);
    my $put = $c->prepare("INSERT INTO $t VALUES (?,?,?,?,?,?,?,?,?,?)");
    $put->bind_param(6, undef, { pg_type => PG_BYTEA });
    $put->execute(@row);
    my @seen = $c->selectrow_array("SELECT * FROM $t");
    equal($seen[$_], $row[$_]) for 0 .. 6, 9;
    equal("@{[map { $_ // 'undef' } @{$seen[7]}]}", '1 -2 undef');
    equal("@{$seen[8]}", 'a b,c d"');
    scalar @seen;
};

feature prepared => sub {
    my $c = connection();
    my $t = table($c, 'prepared', 'id int, v text');
    $c->{pg_switch_prepared} = 2;
    my $put = $c->prepare("INSERT INTO $t VALUES (?, ?)");
    my $get = $c->prepare("SELECT v FROM $t WHERE id = ?");
    for my $i (0 .. 19) {
        $put->execute($i, name('v') . $i);
        $get->execute($i);
        equal(($get->fetchrow_array)[0], name('v') . $i);
    }
    my $now = $c->prepare("SELECT v FROM $t WHERE id = ?", { pg_prepare_now => 1 });
    $now->execute(7);
    my @before = $now->fetchrow_array;
    my @warnings;
    local $SIG{__WARN__} = sub { push @warnings, @_ };
    undef $_ for $put, $get; # by DEALLOCATE, of which only warnings would tell
    die @warnings if @warnings;
    $now->execute(8);
    my @after = $now->fetchrow_array;
    equal($after[0], name('v') . '8');
    (scalar @before, value($c, "SELECT count(*) FROM $t"));
};

feature transaction => sub {
    my ($c, $other) = (connection(AutoCommit => 0), connection());
    my $t     = table($other, 'transaction', 'id int primary key');
    my $count = "/* lsnproxy: consistency=strong */ SELECT count(*) FROM $t";
    $c->do("INSERT INTO $t VALUES (1)");
    equal(value($c, $count) . value($other, $count), '10');
    $c->rollback;
    equal(value($c, $count), 0);
    $c->commit;
    $c->do("INSERT INTO $t VALUES (1)");
    $c->pg_savepoint('s');
    my $inner = state_of(sub { $c->do("INSERT INTO $t VALUES (1)") });
    $c->pg_rollback_to('s');
    $c->commit;
    equal(value($other, $count), 1);
    $c->do('SET TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY');
    equal(value($c, $count) . value($c, 'SHOW transaction_isolation'), '1serializable');
    my $refused = state_of(sub { $c->do("INSERT INTO $t VALUES (2)") });
    $c->rollback;
    ($inner, $refused, value($c, $count));
};

feature error => sub {
    my $c = connection();
    my $t = table($c, 'error', 'id int primary key');
    my @states;
    for my $sql ('SELEC 1', 'SELECT * FROM there_is_none', 'SELECT 1/0', "SELECT 'x'::int", "INSERT INTO $t VALUES (1), (1)") {
        push @states, state_of(sub { $c->do($sql) }), state_of(sub { $c->prepare($sql, { pg_prepare_now => 1 })->execute });
        equal(value($c, "SELECT 'fine'"), 'fine');
    }
    $c->begin_work;
    push @states, state_of(sub { $c->do('SELECT 1/0') }), state_of(sub { $c->do('SELECT 1') });
    $c->rollback;
    my @notices;
    local $SIG{__WARN__} = sub { push @notices, @_ };
    $c->{PrintWarn} = 1;
    $c->do("DO \$\$ BEGIN RAISE NOTICE 'noticed'; END \$\$");
    (@states, map { s/ at .*//sr } @notices);
};

feature cursor => sub {
    my $c = connection(AutoCommit => 0);
    $c->do('DECLARE c CURSOR FOR SELECT generate_series(1, 1000)');
    my $rows = 0;
    while ((my $n = @{$c->selectall_arrayref('FETCH 90 FROM c')}) > 0) { $rows += $n }
    $c->commit;
    $rows;
};

feature copy => sub {
    my $c = connection();
    my $t = table($c, 'copy', 'id int, v text');
    $c->do("COPY $t FROM STDIN");
    $c->pg_putcopydata("$_\trow $_\n") for 0 .. 999;
    $c->pg_putcopyend;
    $c->do("COPY (SELECT * FROM $t ORDER BY id) TO STDOUT");
    my ($line, @out) = ('');
    push @out, $line while $c->pg_getcopydata($line) >= 0;
    equal($out[999], "999\trow 999\n");
    $c->do("COPY $t FROM STDIN");
    $c->pg_putcopydata("no number\tx\n");
    my $bad = state_of(sub { $c->pg_putcopyend });
    (scalar @out, $bad, state_of(sub { $c->do('COPY there_is_none TO STDOUT') }), value($c, "SELECT count(*) FROM $t"));
};

feature cancel => sub {
    my $c = connection();
    $c->do('SELECT pg_sleep(30)', { pg_async => PG_ASYNC });
    select undef, undef, undef, 0.3;
    my $cancelled = $c->pg_cancel ? 'cancelled' : 'too late';
    equal(value($c, "SELECT 'fine'"), 'fine');
    $c->begin_work;
    $c->do('SET LOCAL statement_timeout = 50');
    my $slow = state_of(sub { $c->do('SELECT pg_sleep(30)') });
    $c->rollback;
    ($cancelled, $slow, value($c, "SELECT 'fine'"));
};

feature notify => sub {
    my ($c, $other) = (connection(), connection());
    $c->do('LISTEN ' . name('channel'));
    $other->do('NOTIFY ' . name('channel') . ", 'hello'");
    my $n;
    for (1 .. 1000) {
        last if $n = $c->pg_notifies;
        select undef, undef, undef, 0.01;
    }
    equal($n && $n->[0], name('channel'));
    $c->do('UNLISTEN *');
    $n->[2];
};

feature settings => sub {
    my $c = connection();
    my ($t, $mine) = (table($c, 'settings', 'v text'), name('application'));
    $c->do("SET application_name = $mine");
    $c->do("SET TimeZone = 'Asia/Tokyo'");
    for (1 .. 20) {
        $c->do("INSERT INTO $t VALUES (current_setting('application_name'))");
        equal(value($c, 'SHOW application_name'), $mine);
        equal(value($c, 'SELECT current_setting(?)', 'TimeZone'), 'Asia/Tokyo');
    }
    $c->do($_) for 'BEGIN', "SET LOCAL TimeZone = 'UTC'", 'COMMIT', 'BEGIN', "SET TimeZone = 'UTC'", 'ROLLBACK';
    equal(value($c, 'SHOW TimeZone'), 'Asia/Tokyo');
    equal(value($c, "SELECT count(*) FROM $t WHERE v = ?", $mine), 20);
    $c->do('RESET ALL');
    value($c, "SELECT current_setting('TimeZone') <> 'Asia/Tokyo'");
};

feature largeobject => sub {
    my $c   = connection(AutoCommit => 0);
    my $oid = $c->pg_lo_creat($c->{pg_INV_READ} | $c->{pg_INV_WRITE});
    my $fd  = $c->pg_lo_open($oid, $c->{pg_INV_READ} | $c->{pg_INV_WRITE});
    $c->pg_lo_write($fd, 'large object', 12);
    $c->pg_lo_lseek($fd, 6, 0);
    $c->pg_lo_read($fd, my $seen = '', 6);
    $c->pg_lo_close($fd);
    $c->pg_lo_unlink($oid);
    $c->commit;
    $seen;
};

feature batch => sub {
    my $c = connection();
    my $t = table($c, 'batch', 'id int primary key');
    my $s = $c->prepare("INSERT INTO $t VALUES (?)");
    my $done = $s->execute_array({ ArrayTupleStatus => \my @status }, [1 .. 50]);
    my $failed = state_of(sub { $c->do("INSERT INTO $t VALUES (100); INSERT INTO $t VALUES (1)") });
    ($done, $failed, value($c, "SELECT count(*) FROM $t"));
};
