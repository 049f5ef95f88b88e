package equivalence

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// MaxSessions is how many sessions a scene may have: so many have tables.
const MaxSessions = 8

// Settings are what the servers must be started with: transactions can be
// prepared, and nothing but the sessions changes what a plan or an order of rows
// depends on.
var Settings = map[string]string{"max_prepared_transactions": "20", "autovacuum": "off", "jit": "off"}

// shared is what all sessions read and none changes.
const shared = `
drop schema if exists eq cascade;
create schema eq;
create table eq.items(id int primary key, name text, price numeric(8,2), made timestamptz, tags text[], raw bytea);
insert into eq.items select i, 'item ' || i, i * 1.25, timestamptz '2020-01-01 12:00 UTC' + i * interval '1 day 1 hour', array['x', i::text], decode(lpad(to_hex(i), 4, '0'), 'hex') from generate_series(1, 30) i;
create type eq.mood as enum ('calm', 'cross');
create type eq.pair as (a int, b text);
create view eq.cheap as select id, name from eq.items where price < 5 order by id;
create function eq.noisy(i int) returns int language plpgsql as $$begin raise notice 'noise %', i; raise warning 'loud' using hint = 'h'; return i; end$$;
create function eq.fails(i int) returns int language plpgsql immutable as $$begin raise exception 'no %', i using errcode = 'EQ001', detail = 'd'; end$$;
create function eq.settles(n text, v text) returns text language plpgsql as $$begin perform set_config(n, v, false); return current_setting(n); end$$;
create function eq.deallocates() returns void language plpgsql as $$begin execute 'deallocate all'; end$$;
create table eq.secret(owner text, v int);
insert into eq.secret values ('eq_one', 1), ('eq_two', 2), ('postgres', 3);
alter table eq.secret enable row level security;
create policy own on eq.secret using (owner = current_user);
do $$begin
	if not exists (select from pg_roles where rolname = 'eq_one') then
		create role eq_one; create role eq_two;
	end if;
end$$;
grant usage on schema eq to eq_one, eq_two;
grant select on all tables in schema eq to eq_one, eq_two;
`

// own is what a session has for itself, and changes.
const own = `
drop schema if exists s%[1]d cascade;
create schema s%[1]d;
create table s%[1]d.t(a int primary key, b text);
insert into s%[1]d.t select i, 'row ' || i from generate_series(1, 5) i;
create table s%[1]d.u(a int check (a < 1000), b text default 'none');
create table s%[1]d.w(a int generated always as identity, b int);
create sequence s%[1]d.q;
grant all on schema s%[1]d to eq_one;
grant all on s%[1]d.u to eq_one;
`

// Reset makes on the server at url what scenes begin with.
func Reset(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, "select gid from pg_prepared_xacts")
	if err != nil {
		return err
	}
	gids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, gid := range gids {
		if _, err := conn.Exec(ctx, "rollback prepared '"+gid+"'"); err != nil {
			return err
		}
	}
	script := shared
	for i := range MaxSessions {
		script += fmt.Sprintf(own, i)
	}
	_, err = conn.Exec(ctx, script+"select lo_unlink(oid) from pg_largeobject_metadata")
	return err
}
