# The compatibility program for Ruby's pg.
require 'pg'

def name(of) = "#{ENV.fetch('COMPAT_NAME', 'compat')}_#{of}"

# Tries a feature and prints a line for it; what is seen must be the same on every run.
def feature(what)
  line = "#{what} ok #{[*yield].join(' ')}"
rescue StandardError => e
  line = "#{what} FAIL #{e.class} #{e.message} #{e.backtrace.first}"
ensure
  puts line.gsub(/\s+/, ' ').strip
  $stdout.flush
end

def equal(seen, wanted)
  raise "#{seen.inspect} instead of #{wanted.inspect}" unless seen == wanted
end

def value(c, sql, args = []) = c.exec_params(sql, args).getvalue(0, 0)

def table(c, of, columns)
  t = name(of)
  c.exec("DROP TABLE IF EXISTS #{t}; CREATE TABLE #{t} (#{columns})")
  t
end

def state
  yield
  'no error'
rescue PG::Error => e
  e.result ? e.result.error_field(PG::PG_DIAG_SQLSTATE) : e.class
end

# on runs a feature on a connection of its own.
def on(what)
  feature(what) do
    c = PG.connect
    c.set_notice_processor { |_| }
    begin
      yield c
    ensure
      c.close
    end
  end
end

on 'reads' do |c|
  t = name('reads')
  50.times do |i|
    c.exec_params("UPDATE #{t} SET n = $1 WHERE id = 1", [i])
    equal value(c, "SELECT n FROM #{t} WHERE id = $1", [1]), i.to_s
  end
  nil
end

on 'connect' do |c|
  missing = begin
    PG.connect(dbname: 'there_is_none')
  rescue PG::ConnectionBad => e
    e.message[/FATAL:.*/]
  end
  [value(c, "SELECT current_user || ' ' || current_database()"), c.server_version, c.parameter_status('server_encoding'), missing]
end

on 'types' do |c|
  t = table(c, 'types', 'b bool, l int8, f float8, n numeric, t text, y bytea, z timestamptz, a int[], ta text[], nothing text')
  c.type_map_for_results = PG::BasicTypeMapForResults.new(c)
  row = [true, -9_223_372_036_854_775_808, 0.1, BigDecimal('12345678901234567890.123456789'), "żółć \"' \\ 日本",
         "\0\1\xFF".b, Time.utc(2024, 2, 29, 13, 14, 15), [1, -2, nil], ['a', 'b,c', 'd"'], nil]
  args = row.dup
  args[3] = args[3].to_s('F')
  args[5] = { value: row[5], format: 1 }
  args[7] = PG::TextEncoder::Array.new(elements_type: PG::TextEncoder::Integer.new).encode(row[7])
  args[8] = PG::TextEncoder::Array.new.encode(row[8])
  c.exec_params("INSERT INTO #{t} VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10)", args)
  equal c.exec_params("SELECT * FROM #{t}").values[0], row
  binary = c.exec_params("SELECT l, y FROM #{t}", [], 1).values[0]
  equal binary, [row[1], row[5]]
  row.size
end

on 'prepared' do |c|
  t = table(c, 'prepared', 'id int, v text')
  c.prepare('put', "INSERT INTO #{t} VALUES ($1, $2)")
  c.prepare('get', "SELECT v FROM #{t} WHERE id = $1")
  20.times do |i|
    c.exec_prepared('put', [i, "#{name('v')}#{i}"])
    equal c.exec_prepared('get', [i]).getvalue(0, 0), "#{name('v')}#{i}"
  end
  twice = state { c.prepare('get', 'SELECT 1') }
  described = c.describe_prepared('get')
  c.exec('DEALLOCATE get')
  gone = state { c.exec_prepared('get', [1]) }
  c.prepare('get', 'SELECT $1::int + 1')
  [twice, gone, described.fields, described.paramtype(0), c.exec_prepared('get', [1]).getvalue(0, 0), value(c, "SELECT count(*) FROM #{t}")].flatten
end

on 'transaction' do |c|
  other = PG.connect
  t = table(c, 'transaction', 'id int primary key')
  count = "/* lsnproxy: consistency=strong */ SELECT count(*) FROM #{t}"
  begin
    c.transaction do
      c.exec("INSERT INTO #{t} VALUES (1)")
      equal [value(c, count), value(other, count)], %w[1 0]
      raise ArgumentError
    end
  rescue ArgumentError
    equal value(c, count), '0'
  end
  inner = nil
  c.transaction do
    c.exec("INSERT INTO #{t} VALUES (1); SAVEPOINT s")
    inner = state { c.exec("INSERT INTO #{t} VALUES (1)") }
    c.exec('ROLLBACK TO s')
  end
  equal value(other, count), '1'
  c.exec('BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY')
  equal [value(c, count), value(c, 'SHOW transaction_isolation')], %w[1 serializable]
  refused = state { c.exec("INSERT INTO #{t} VALUES (2)") }
  failed = c.transaction_status
  c.exec('ROLLBACK')
  other.close
  [inner, refused, failed, c.transaction_status]
end

on 'error' do |c|
  notices = []
  t = table(c, 'error', 'id int primary key')
  c.set_notice_processor { |n| notices << n }
  states = ['SELEC 1', 'SELECT * FROM there_is_none', 'SELECT 1/0', "SELECT 'x'::int", "INSERT INTO #{t} VALUES (1), (1)"].flat_map do |sql|
    seen = [state { c.exec(sql) }, state { c.exec_params(sql, []) }]
    equal value(c, "SELECT 'fine'"), 'fine'
    seen
  end
  c.exec('BEGIN')
  states << state { c.exec('SELECT 1/0') } << state { c.exec('SELECT 1') }
  c.exec('ROLLBACK')
  c.exec("DO $$ BEGIN RAISE NOTICE 'noticed'; END $$")
  states + notices
end

on 'cursor' do |c|
  rows = 0
  c.transaction do
    c.exec('DECLARE c CURSOR FOR SELECT generate_series(1, 1000)')
    while (n = c.exec('FETCH 90 FROM c').ntuples).positive?
      rows += n
    end
  end
  c.send_query('SELECT generate_series(1, 1000)')
  c.set_single_row_mode
  single = 0
  c.get_result.stream_each { |_| single += 1 }
  [rows, single]
end

on 'copy' do |c|
  t = table(c, 'copy', 'id int, v text')
  c.copy_data("COPY #{t} FROM STDIN") { 1000.times { |i| c.put_copy_data("#{i}\trow #{i}\n") } }
  out = []
  c.copy_data("COPY (SELECT * FROM #{t} ORDER BY id) TO STDOUT") do
    while (line = c.get_copy_data)
      out << line
    end
  end
  equal out[999], "999\trow 999\n"
  bad = state { c.copy_data("COPY #{t} FROM STDIN") { c.put_copy_data("no number\tx\n") } }
  given_up = begin
    c.copy_data("COPY #{t} FROM STDIN") do
      c.put_copy_data("1\tx\n")
      raise ArgumentError, 'given up'
    end
  rescue ArgumentError => e
    e.message
  end
  [out.size, bad, given_up, state { c.copy_data('COPY there_is_none TO STDOUT') {} }, value(c, "SELECT count(*) FROM #{t}")]
end

on 'cancel' do |c|
  canceller = Thread.new do
    sleep 0.3
    c.cancel
  end
  cancelled = state { c.exec('SELECT pg_sleep(30)') }
  canceller.join
  equal value(c, "SELECT 'fine'"), 'fine'
  c.exec('BEGIN; SET LOCAL statement_timeout = 50')
  slow = state { c.exec('SELECT pg_sleep(30)') }
  c.exec('ROLLBACK')
  [cancelled, slow, value(c, "SELECT 'fine'")]
end

on 'notify' do |c|
  other = PG.connect
  c.exec("LISTEN #{name('channel')}")
  other.exec_params('SELECT pg_notify($1, $2)', [name('channel'), 'hello'])
  came = nil
  c.wait_for_notify(10) { |channel, _, payload| came = [channel, payload] }
  equal came&.first, name('channel')
  c.exec('UNLISTEN *')
  other.close
  came[1]
end

on 'settings' do |c|
  t = table(c, 'settings', 'v text')
  mine = name('application')
  c.exec("SET application_name = #{mine}; SET TimeZone = 'Asia/Tokyo'")
  20.times do
    c.exec("INSERT INTO #{t} VALUES (current_setting('application_name'))")
    equal value(c, 'SHOW application_name'), mine
    equal value(c, 'SELECT current_setting($1)', ['TimeZone']), 'Asia/Tokyo'
  end
  equal c.parameter_status('TimeZone'), 'Asia/Tokyo'
  c.exec("BEGIN; SET LOCAL TimeZone = 'UTC'; COMMIT")
  c.exec("BEGIN; SET TimeZone = 'UTC'; ROLLBACK")
  equal value(c, 'SHOW TimeZone'), 'Asia/Tokyo'
  equal value(c, "SELECT count(*) FROM #{t} WHERE v = $1", [mine]), '20'
  c.set_client_encoding('LATIN1')
  equal value(c, 'SELECT chr(252)').b, "\xFC".b
  c.reset # connects anew
  [c.get_client_encoding, c.parameter_status('application_name') == mine]
end

on 'largeobject' do |c|
  c.transaction do
    oid = c.lo_creat
    fd = c.lo_open(oid, PG::INV_READ | PG::INV_WRITE)
    c.lo_write(fd, 'large object')
    c.lo_lseek(fd, 6, PG::SEEK_SET)
    seen = c.lo_read(fd, 6)
    c.lo_close(fd)
    c.lo_unlink(oid)
    seen
  end
end

on 'batch' do |c|
  t = table(c, 'batch', 'id int primary key')
  c.enter_pipeline_mode
  50.times { |i| c.send_query_params("INSERT INTO #{t} VALUES ($1)", [i]) }
  c.pipeline_sync
  c.send_query_params("INSERT INTO #{t} VALUES (100)", [])
  c.send_query_params("INSERT INTO #{t} VALUES (1)", [])
  c.send_query_params("INSERT INTO #{t} VALUES (101)", [])
  c.pipeline_sync
  seen = Hash.new(0)
  syncs = 0
  while syncs < 2
    next unless (r = c.get_result)

    seen[r.result_status] += 1
    syncs += 1 if r.result_status == PG::PGRES_PIPELINE_SYNC
  end
  c.exit_pipeline_mode
  [seen.sort.flatten, value(c, "SELECT count(*) FROM #{t}")].flatten
end
