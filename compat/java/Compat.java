import java.math.BigDecimal;
import java.sql.*;
import java.time.LocalDate;
import java.time.OffsetDateTime;
import java.util.*;
import java.util.concurrent.*;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.largeobject.*;

/** The compatibility program for PostgreSQL's JDBC driver. */
public class Compat {
    interface Attempt {
        Object run() throws Exception;
    }

    /** Tries a feature and prints a line for it; what is seen must be the same on every run. */
    static void feature(String name, Attempt attempt) {
        String line;
        try {
            line = name + " ok " + attempt.run();
        } catch (Exception | AssertionError e) {
            line = name + " FAIL " + e + " " + e.getStackTrace()[0];
        }
        System.out.println(line.replaceAll("\\s+", " "));
    }

    static void equal(Object seen, Object wanted) {
        if (!Objects.equals(seen, wanted)) throw new AssertionError(seen + " instead of " + wanted);
    }

    static String name(String of) {
        return System.getenv().getOrDefault("COMPAT_NAME", "compat") + "_" + of;
    }

    static Connection connect(String... more) throws SQLException {
        Properties p = new Properties();
        p.setProperty("user", System.getenv("PGUSER"));
        p.setProperty("sslmode", "disable");
        for (int i = 0; i < more.length; i += 2) p.setProperty(more[i], more[i + 1]);
        String database = (String) p.getOrDefault("database", System.getenv("PGDATABASE"));
        p.remove("database");
        return DriverManager.getConnection(
            "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + database, p);
    }

    static void run(Connection c, String... statements) throws SQLException {
        for (String sql : statements) {
            try (Statement s = c.createStatement()) {
                s.execute(sql);
            }
        }
    }

    static String value(Connection c, String sql, Object... args) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(sql)) {
            for (int i = 0; i < args.length; i++) s.setObject(i + 1, args[i]);
            try (ResultSet r = s.executeQuery()) {
                r.next();
                return r.getString(1);
            }
        }
    }

    static String table(Connection c, String of, String columns) throws SQLException {
        String t = name(of);
        run(c, "DROP TABLE IF EXISTS " + t, "CREATE TABLE " + t + " (" + columns + ")");
        return t;
    }

    static String state(Attempt attempt) throws Exception {
        try {
            attempt.run();
            return "no error";
        } catch (SQLException e) {
            return e.getSQLState();
        }
    }

    static String state(Connection c, String... statements) throws Exception {
        return state(() -> {
            run(c, statements);
            return null;
        });
    }

    static Object reads() throws Exception {
        try (Connection c = connect()) {
            String t = name("reads");
            for (int i = 0; i < 50; i++) {
                try (PreparedStatement s = c.prepareStatement("UPDATE " + t + " SET n = ? WHERE id = 1")) {
                    s.setInt(1, i);
                    equal(s.executeUpdate(), 1);
                }
                equal(value(c, "SELECT n FROM " + t + " WHERE id = ?", 1), "" + i);
            }
            return "";
        }
    }

    static Object connecting() throws Exception {
        try (Connection c = connect()) {
            DatabaseMetaData m = c.getMetaData();
            return value(c, "SELECT current_user || ' ' || current_database()") + " " + m.getDatabaseProductVersion()
                + " " + c.isValid(5) + " " + state(() -> connect("database", "there_is_none"));
        }
    }

    static Object types() throws Exception {
        try (Connection c = connect()) {
            String t = table(c, "types", "b bool, s int2, i int4, l int8, f float8, n numeric, t text, y bytea, d date,"
                + " z timestamptz, u uuid, a int4[], ta text[], nothing text");
            Object[] row = {
                true, -32768, 2147483647, Long.MIN_VALUE, 0.1, new BigDecimal("12345678901234567890.123456789"),
                "żółć \"' \\ 日本", new byte[] {0, 1, -1}, LocalDate.of(2024, 2, 29),
                OffsetDateTime.parse("2024-02-29T13:14:15.678901Z"), new UUID(1, 2),
                c.createArrayOf("int4", new Integer[] {1, -2, null}), c.createArrayOf("text", new String[] {"a", "b,c"}), null,
            };
            String marks = String.join(",", Collections.nCopies(row.length, "?"));
            int rounds = 8; // past the threshold the server's own prepared statement and binary formats are used
            try (PreparedStatement s = c.prepareStatement("INSERT INTO " + t + " VALUES (" + marks + ")")) {
                for (int n = 0; n < rounds; n++) {
                    for (int i = 0; i < row.length; i++) s.setObject(i + 1, row[i]);
                    s.executeUpdate();
                }
            }
            try (PreparedStatement s = c.prepareStatement("SELECT * FROM " + t)) {
                for (int n = 0; n < rounds; n++) {
                    try (ResultSet r = s.executeQuery()) {
                        while (r.next()) check(r, row);
                    }
                }
            }
            return row.length;
        }
    }

    static void check(ResultSet r, Object[] row) throws SQLException {
        equal(r.getBoolean(1), row[0]);
        for (int i = 2; i <= 5; i++) equal(r.getString(i), row[i - 1].toString());
        equal(r.getBigDecimal(6), row[5]);
        equal(r.getString(7), row[6]);
        equal(Arrays.toString(r.getBytes(8)), Arrays.toString((byte[]) row[7]));
        equal(r.getObject(9, LocalDate.class), row[8]);
        equal(r.getObject(10, OffsetDateTime.class).toInstant(), ((OffsetDateTime) row[9]).toInstant());
        equal(r.getObject(11), row[10]);
        equal(Arrays.toString((Object[]) r.getArray(12).getArray()), "[1, -2, null]");
        equal(Arrays.toString((Object[]) r.getArray(13).getArray()), "[a, b,c]");
        equal(r.getString(14), null);
    }

    static Object prepared() throws Exception {
        try (Connection c = connect("preparedStatementCacheQueries", "3")) {
            String t = table(c, "prepared", "id int, v text");
            try (PreparedStatement put = c.prepareStatement("INSERT INTO " + t + " VALUES (?, ?)");
                PreparedStatement get = c.prepareStatement("SELECT v FROM " + t + " WHERE id = ?")) {
                for (int i = 0; i < 20; i++) {
                    put.setInt(1, i);
                    put.setString(2, name("v") + i);
                    put.executeUpdate();
                    get.setInt(1, i);
                    try (ResultSet r = get.executeQuery()) {
                        r.next();
                        equal(r.getString(1), name("v") + i);
                    }
                }
            }
            PreparedStatement all = c.prepareStatement("SELECT * FROM " + t + " WHERE id = 3");
            for (int i = 0; i < 10; i++) all.executeQuery().close();
            run(c, "ALTER TABLE " + t + " ADD more int");
            int columns = all.executeQuery().getMetaData().getColumnCount();
            // In a transaction the driver cannot prepare it again.
            for (int i = 0; i < 10; i++) all.executeQuery().close();
            run(c, "ALTER TABLE " + t + " ADD yet_more int");
            c.setAutoCommit(false);
            String changed = state(() -> all.executeQuery());
            c.rollback();
            c.setAutoCommit(true);
            // More statements than the driver keeps: it closes the oldest.
            for (int i = 0; i < 60; i++) equal(value(c, "SELECT " + i % 6 + " + ?::int", i), "" + (i % 6 + i));
            return columns + " " + changed + " " + value(c, "SELECT count(*) FROM " + t);
        }
    }

    static Object transaction() throws Exception {
        try (Connection c = connect(); Connection other = connect()) {
            String t = table(c, "transaction", "id int primary key"), count = "/* lsnproxy: consistency=strong */ SELECT count(*) FROM " + t;
            c.setAutoCommit(false);
            run(c, "INSERT INTO " + t + " VALUES (1)");
            equal(value(c, count) + value(other, count), "10");
            c.rollback();
            equal(value(c, count), "0");
            run(c, "INSERT INTO " + t + " VALUES (1)");
            Savepoint s = c.setSavepoint("s");
            String inner = state(c, "INSERT INTO " + t + " VALUES (1)");
            c.rollback(s);
            c.commit();
            equal(value(other, count), "1");
            c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
            c.setReadOnly(true);
            equal(value(c, count) + value(c, "SHOW transaction_isolation"), "1serializable");
            String refused = state(c, "INSERT INTO " + t + " VALUES (2)");
            c.rollback();
            return inner + " " + refused + " " + value(other, count);
        }
    }

    static Object error() throws Exception {
        try (Connection c = connect()) {
            String t = table(c, "error", "id int primary key");
            List<String> states = new ArrayList<>();
            for (String sql : List.of("SELEC 1", "SELECT * FROM there_is_none", "SELECT 1/0", "SELECT 'x'::int",
                "INSERT INTO " + t + " VALUES (1), (1)")) {
                states.add(state(c, sql));
                equal(value(c, "SELECT 'fine'"), "fine");
            }
            c.setAutoCommit(false);
            states.add(state(c, "SELECT 1/0"));
            states.add(state(c, "SELECT 1"));
            c.rollback();
            try (Statement s = c.createStatement()) {
                s.execute("DO $$ BEGIN RAISE WARNING 'noticed'; END $$");
                return states + " " + s.getWarnings().getMessage();
            }
        }
    }

    /** Portals, some rows at a time. */
    static Object cursor() throws Exception {
        try (Connection c = connect()) {
            c.setAutoCommit(false);
            long total = 0;
            try (Statement s = c.createStatement(); Statement beside = c.createStatement()) {
                s.setFetchSize(90);
                try (ResultSet r = s.executeQuery("SELECT generate_series(1, 1000)")) {
                    while (r.next()) {
                        total += r.getInt(1);
                        // Another statement between the portal's runs.
                        if (r.getInt(1) % 100 == 0) beside.executeQuery("SELECT 1").close();
                    }
                }
                s.setMaxRows(7);
                int rows = 0;
                try (ResultSet r = s.executeQuery("SELECT generate_series(1, 1000)")) {
                    while (r.next()) rows++;
                }
                c.commit();
                return total + " " + rows;
            }
        }
    }

    static Object copy() throws Exception {
        try (Connection c = connect()) {
            String t = table(c, "copy", "id int, v text");
            var copies = c.unwrap(PGConnection.class).getCopyAPI();
            var in = new StringBuilder();
            for (int i = 0; i < 1000; i++) in.append(i).append("\trow ").append(i).append('\n');
            long sent = copies.copyIn("COPY " + t + " FROM STDIN", new java.io.StringReader(in.toString()));
            var out = new java.io.StringWriter();
            long back = copies.copyOut("COPY (SELECT * FROM " + t + " ORDER BY id) TO STDOUT", out);
            equal(out.toString(), in.toString());
            String bad = state(() -> copies.copyIn("COPY " + t + " FROM STDIN", new java.io.StringReader("no number\tx\n")));
            String missing = state(() -> copies.copyOut("COPY there_is_none TO STDOUT", new java.io.StringWriter()));
            var begun = copies.copyIn("COPY " + t + " FROM STDIN");
            begun.writeToCopy("1\tx\n".getBytes(), 0, 4);
            begun.cancelCopy();
            return sent + " " + back + " " + bad + " " + missing + " " + value(c, "SELECT count(*) FROM " + t);
        }
    }

    static Object cancel() throws Exception {
        try (Connection c = connect(); Statement s = c.createStatement()) {
            var timer = Executors.newSingleThreadScheduledExecutor();
            var cancelling = timer.schedule(() -> {
                s.cancel();
                return null;
            }, 300, TimeUnit.MILLISECONDS);
            String cancelled = state(() -> s.executeQuery("SELECT pg_sleep(30)"));
            cancelling.get();
            timer.shutdown();
            equal(value(c, "SELECT 'fine'"), "fine");
            s.setQueryTimeout(1);
            String timedOut = state(() -> s.executeQuery("SELECT pg_sleep(30)"));
            c.setAutoCommit(false);
            String slow = state(c, "SET LOCAL statement_timeout = 50", "SELECT pg_sleep(30)");
            c.rollback();
            return cancelled + " " + timedOut + " " + slow + " " + value(c, "SELECT 'fine'");
        }
    }

    static Object notification() throws Exception {
        try (Connection c = connect(); Connection other = connect()) {
            run(c, "LISTEN " + name("channel"));
            run(other, "NOTIFY " + name("channel") + ", 'hello'");
            PGNotification[] came = c.unwrap(PGConnection.class).getNotifications(10000);
            equal(came[0].getName(), name("channel"));
            run(c, "UNLISTEN *");
            return came.length + " " + came[0].getParameter();
        }
    }

    static Object settings() throws Exception {
        try (Connection c = connect()) {
            String t = table(c, "settings", "v text"), mine = name("application");
            c.setClientInfo("ApplicationName", mine);
            run(c, "SET TimeZone = 'Asia/Tokyo'");
            c.setSchema("pg_catalog");
            for (int i = 0; i < 20; i++) {
                run(c, "INSERT INTO public." + t + " VALUES (current_setting('application_name'))");
                equal(value(c, "SHOW application_name"), mine);
                equal(value(c, "SELECT current_setting('TimeZone')"), "Asia/Tokyo");
                equal(c.getSchema(), "pg_catalog");
            }
            equal(c.unwrap(PGConnection.class).getParameterStatus("TimeZone"), "Asia/Tokyo");
            run(c, "BEGIN", "SET LOCAL TimeZone = 'UTC'", "COMMIT", "BEGIN", "SET TimeZone = 'UTC'", "ROLLBACK");
            equal(value(c, "SHOW TimeZone"), "Asia/Tokyo");
            equal(value(c, "SELECT count(*) FROM public." + t + " WHERE v = ?", mine), "20");
            run(c, "RESET ALL");
        }
        try (Connection c = connect("options", "-c search_path=elsewhere", "readOnly", "true", "readOnlyMode", "always")) {
            return value(c, "SHOW search_path") + " " + state(c, "CREATE TABLE public." + name("x") + " ()");
        }
    }

    static Object largeObject() throws Exception {
        try (Connection c = connect()) {
            c.setAutoCommit(false);
            LargeObjectManager all = c.unwrap(PGConnection.class).getLargeObjectAPI();
            long oid = all.createLO(LargeObjectManager.READWRITE);
            LargeObject o = all.open(oid, LargeObjectManager.READWRITE);
            o.write("large object".getBytes());
            o.seek(6);
            String seen = new String(o.read(6));
            o.close();
            all.delete(oid);
            c.commit();
            return seen;
        }
    }

    static Object batch() throws Exception {
        try (Connection c = connect("reWriteBatchedInserts", "false")) {
            String t = table(c, "batch", "id int primary key");
            try (PreparedStatement s = c.prepareStatement("INSERT INTO " + t + " VALUES (?)")) {
                for (int n = 0; n < 10; n++) {
                    for (int i = 0; i < 50; i++) {
                        s.setInt(1, n * 50 + i);
                        s.addBatch();
                    }
                    equal(s.executeBatch().length, 50);
                }
                s.setInt(1, 1000);
                s.addBatch();
                s.setInt(1, 1);
                s.addBatch();
                String failed = state(() -> s.executeBatch());
                try (PreparedStatement keys = c.prepareStatement("INSERT INTO " + t + " VALUES (2000)", new String[] {"id"})) {
                    keys.executeUpdate();
                    ResultSet r = keys.getGeneratedKeys();
                    r.next();
                    return failed + " " + r.getInt(1) + " " + value(c, "SELECT count(*) FROM " + t);
                }
            }
        }
    }

    /** The questions that tools ask of the catalogs. */
    static Object metadata() throws Exception {
        try (Connection c = connect()) {
            String t = table(c, "metadata", "id int primary key, v varchar(10) not null default 'x'");
            List<String> seen = new ArrayList<>();
            try (ResultSet r = c.getMetaData().getColumns(null, "public", t, "%")) {
                while (r.next()) seen.add(r.getString("COLUMN_NAME") + " " + r.getString("TYPE_NAME") + " " + r.getInt("COLUMN_SIZE"));
            }
            try (ResultSet r = c.getMetaData().getPrimaryKeys(null, "public", t)) {
                while (r.next()) seen.add(r.getString("COLUMN_NAME"));
            }
            return seen;
        }
    }

    public static void main(String[] args) {
        feature("reads", Compat::reads);
        feature("connect", Compat::connecting);
        feature("types", Compat::types);
        feature("prepared", Compat::prepared);
        feature("transaction", Compat::transaction);
        feature("error", Compat::error);
        feature("cursor", Compat::cursor);
        feature("copy", Compat::copy);
        feature("cancel", Compat::cancel);
        feature("notify", Compat::notification);
        feature("settings", Compat::settings);
        feature("largeobject", Compat::largeObject);
        feature("batch", Compat::batch);
        feature("metadata", Compat::metadata);
    }
}
