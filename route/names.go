package route

import "strings"

// effect is what a name brings with it: whether it keeps a statement from being
// a read, and what it leaves in the server's session. The zero effect is that
// of an unreadable name; plain is that of a harmless one.
type effect struct {
	reason   Reason
	pin      Pin
	frees    Pin
	arg      argRule
	schema   bool   // may change what a Catalog knows
	prepared bool   // deals with prepared statements by their names
	currval  bool   // asks for what nextval has left in the session
	timed    bool   // asks when the transaction began
	nextval  bool   // may call nextval; of a relation, when it is written
	sets     string // Class.Sets
	reads    string // Class.Reads
	defaults bool   // Class.Defaults
}

// argRule says that the effect of a call depends on its arguments.
type argRule uint8

const (
	argNone    argRule = iota
	argLocal           // set_config: its first argument names the setting, none is left changed if its third is TRUE
	argSetting         // current_setting: harmless for a setting that is in sameSettings
)

var plain = effect{reason: ReasonRead}

// and joins two effects: the first that is not harmless gives the reason.
func (e effect) and(o effect) effect {
	if e.reason == ReasonRead {
		e.reason = o.reason
	}
	e.pin |= o.pin
	e.frees |= o.frees
	if e.arg == argNone {
		e.arg = o.arg
	}
	e.schema = e.schema || o.schema
	e.prepared = e.prepared || o.prepared
	e.currval = e.currval || o.currval
	e.nextval = e.nextval || o.nextval
	e.timed = e.timed || o.timed
	e.defaults = e.defaults || o.defaults
	e.sets, e.reads = Union(e.sets, o.sets), Union(e.reads, o.reads)
	return e
}

// special returns the effect of functions whose mark in pg_proc does not tell
// it. A function of any schema with such a name counts as the one meant here.
func special(name string) (effect, bool) {
	if e, ok := specials[name]; ok {
		return e, true
	}
	// The cumulative statistics are each server's own.
	if strings.HasPrefix(name, "pg_stat_") {
		return effect{reason: ReasonNodeSpecific}, true
	}
	return effect{}, false
}

var specials = expand(map[effect]string{
	{reason: ReasonVolatile, nextval: true}: `nextval setval`,

	// Marked STABLE, and yet they assign a transaction id.
	{reason: ReasonVolatile}: `txid_current pg_current_xact_id`,

	// Marked STABLE or IMMUTABLE, but the answer belongs to one server: its
	// address, its files and configuration, its snapshots and slots. The
	// pg_walfile_name functions refuse to run on a follower.
	{reason: ReasonNodeSpecific}: `inet_server_addr inet_server_port inet_client_addr inet_client_port
		pg_postmaster_start_time pg_conf_load_time version pg_config pg_show_all_settings
		pg_current_snapshot txid_current_snapshot pg_get_replication_slots pg_is_in_recovery
		pg_current_wal_lsn pg_current_wal_insert_lsn pg_current_wal_flush_lsn pg_last_wal_receive_lsn
		pg_last_wal_replay_lsn pg_last_xact_replay_timestamp pg_lock_status pg_prepared_xact
		pg_available_extensions pg_available_extension_versions pg_extension_update_paths
		pg_timezone_names pg_timezone_abbrevs pg_timezone_abbrevs_abbrevs pg_timezone_abbrevs_zone
		pg_tablespace_location pg_walfile_name pg_walfile_name_offset pg_get_wait_events
		pg_get_loaded_modules pg_numa_available unicode_version icu_unicode_version
		pg_get_sequence_data pg_sequence_read_tuple postgres_fdw_get_connections`,

	// What the server's session remembers.
	{reason: ReasonSessionState}: `pg_cursor pg_listening_channels
		txid_current_if_assigned pg_current_xact_id_if_assigned`,
	{reason: ReasonSessionState, prepared: true}:  `pg_prepared_statement`,
	{reason: ReasonSessionState, currval: true}:   `currval lastval`,
	{reason: ReasonSessionState, pin: PinSetting}: `setseed set_limit pg_replication_origin_session_setup`,
	// The client will use the process id on the server it got it from.
	{reason: ReasonSessionState, pin: PinIdentity}: `pg_backend_pid`,
	// dblink's connections live in the session that opened them.
	{reason: ReasonSessionState, pin: PinBackend}: `dblink_connect dblink_connect_u`,
	// What set_config leaves is decided by its arguments.
	{reason: ReasonSessionState, arg: argLocal}: `set_config`,
	{reason: ReasonVolatile, defaults: true}:    `pg_reload_conf`,
	{reason: ReasonRead, arg: argSetting}:       `current_setting`,

	// Advisory locks are taken on one server.
	{reason: ReasonLocking, frees: PinLock}: `pg_advisory_unlock pg_advisory_unlock_shared pg_advisory_unlock_all`,
	{reason: ReasonLocking}: `pg_advisory_xact_lock pg_advisory_xact_lock_shared pg_try_advisory_xact_lock
		pg_try_advisory_xact_lock_shared`,
	{reason: ReasonLocking, pin: PinLock}: `pg_advisory_lock pg_advisory_lock_shared
		pg_try_advisory_lock pg_try_advisory_lock_shared`,

	// They run queries, or read relations, that are named in their arguments,
	// under a mark that promises more than the text does.
	{reason: ReasonDynamic}: `table_to_xml table_to_xmlschema table_to_xml_and_xmlschema
		schema_to_xml schema_to_xmlschema schema_to_xml_and_xmlschema
		database_to_xml database_to_xmlschema database_to_xml_and_xmlschema
		query_to_xml query_to_xmlschema query_to_xml_and_xmlschema cursor_to_xml cursor_to_xmlschema
		ts_stat ts_rewrite crosstab crosstab2 crosstab3 crosstab4 connectby xpath_table`,
})

// harmless are functions of pg_catalog that are marked VOLATILE only because
// they do not repeat their answer, or by default: they write nothing, remember
// nothing, and what they read is replicated. system and bernoulli are the
// sampling methods of TABLESAMPLE.
var harmless = expand(map[effect]string{
	plain: `clock_timestamp timeofday random random_normal gen_random_uuid uuidv4 uuidv7
		array_shuffle array_sample pg_sleep pg_sleep_for pg_sleep_until current_query lo_get
		pg_partition_tree pg_partition_ancestors system bernoulli`,
})

// pure are functions of pg_catalog that Classify trusts without a Catalog, beside
// harmless: those that connection checks and tools use most.
var pure = expand(map[effect]string{
	plain: `abs array_agg array_length array_to_string avg bool_and bool_or cardinality ceil concat concat_ws
		count current_database current_schema current_schemas date_part date_trunc floor format
		generate_series json_agg json_build_object jsonb_agg jsonb_build_object left length lower max min
		mod now pg_client_encoding pg_typeof quote_ident quote_literal rank repeat replace right round
		row_number row_to_json split_part statement_timestamp string_agg strpos substr sum to_char to_json
		to_jsonb transaction_timestamp unnest upper`,
})

// grammar are the words that look like functions and cannot name one unless
// quoted (pg_get_keywords, catcode C): in every server from 14 on, and since 16
// or 17. What they do is in their arguments.
var grammar, grammarSince16 = expand(map[effect]string{
	plain: `between bigint bit boolean char character coalesce dec decimal exists extract float greatest grouping
		inout int integer interval least national nchar none normalize nullif numeric out overlay position
		precision real row setof smallint substring time timestamp treat trim values varchar xmlattributes
		xmlconcat xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable`,
}), expand(map[effect]string{
	plain: `json json_array json_arrayagg json_exists json_object json_objectagg json_query json_scalar
		json_serialize json_table json_value merge_action`,
})

// sameSettings are the settings whose value does not depend on the server the
// session is on: fixed when the cluster was made, reported to the client and so
// carried along, or belonging to the session. All others are the leader's to
// tell, among them whatever postgresql.conf may set differently per server.
var sameSettings = expand(map[effect]string{
	plain: `application_name array_nulls block_size bytea_output client_encoding client_min_messages
		constraint_exclusion datestyle default_text_search_config default_toast_compression
		default_transaction_deferrable default_transaction_isolation default_transaction_read_only
		extra_float_digits idle_in_transaction_session_timeout integer_datetimes intervalstyle
		is_superuser lc_collate lc_ctype lc_messages lc_monetary lc_numeric lc_time lock_timeout
		max_function_args max_identifier_length max_index_keys plan_cache_mode quote_all_identifiers
		role row_security search_path segment_size server_encoding session_authorization
		standard_conforming_strings statement_timeout timezone transaction_deferrable
		transaction_isolation transform_null_equals wal_block_size wal_segment_size work_mem
		xmlbinary xmloption`,
})

// builtinOperators are the operators of pg_catalog, which Classify trusts
// without a Catalog.
const builtinOperators = `!! !~ !~* !~~ !~~* # ## #- #> #>> % & && &< &<| &> * *< *<= *<> *= *> *>= + - ->
	->> -|- / < <-> << <<= <<| <= <> <@ <^ = > >= >> >>= >^ ? ?# ?& ?- ?-| ?| ?|| @ @-@ @> @? @@ @@@ ^ ^@
	| |&> |/ |>> || ||/ ~ ~* ~<=~ ~<~ ~= ~>=~ ~>~ ~~ ~~*`

// expand turns lists of names into a table.
func expand(lists map[effect]string) map[string]effect {
	table := make(map[string]effect)
	for e, names := range lists {
		for name := range strings.FieldsSeq(names) {
			table[name] = e
		}
	}
	return table
}
