//! What the server's own functions, and those of well-known extensions, do.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use holdfast_core::Effect;

/// What calling a function means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It acts outside of the transaction, or out of sight.
    Does(Effect, &'static str),
    /// It only computes or reads.
    Pure,
    /// It runs SQL that it is given as text, reading only.
    ReadsText,
    /// `set_config`.
    SetConfig,
    /// `pg_sleep`.
    Sleeps,
    /// Nothing is known about it.
    Unlisted,
    /// It writes within the transaction, or harmlessly outside.
    Writes(&'static str),
}

/// Says what calling a function means; all names in lower case.
pub(super) fn meaning(schema: Option<&str>, function: &str) -> Meaning {
    let schema = schema.map(|schema| schema.rsplit('.').next().unwrap_or_default());
    if let Some(schema) = schema
        && let Some((_, effect, because)) = SCHEMAS.iter().find(|(word, ..)| schema == *word)
    {
        return Meaning::Does(*effect, because);
    }
    if let Some(meaning) = ACTING.of(function) {
        return meaning;
    }
    let is_builtin = schema.is_none_or(|schema| schema == "pg_catalog");
    match is_builtin.then(|| PURE.of(function)).flatten() {
        Some(meaning) => meaning,
        None => Meaning::Unlisted,
    }
}

/// Tells whether a function gives another value in every row.
pub(super) fn is_volatile(function: &str) -> bool {
    VOLATILE.of(function).is_some()
}

static ACTING: LazyLock<Words> = LazyLock::new(|| {
    let mut words = Words::default();
    for (text, effect, because) in ACTS {
        words.add(text, Meaning::Does(*effect, because));
    }
    for (text, because) in WRITES {
        words.add(text, Meaning::Writes(because));
    }
    words.add(TEXT, Meaning::ReadsText);
    words.add("set_config", Meaning::SetConfig);
    words.add("pg_sleep pg_sleep_for pg_sleep_until", Meaning::Sleeps);
    words
});

static PURE: LazyLock<Words> = LazyLock::new(|| {
    let mut words = Words::default();
    words.add(PURE_WORDS, Meaning::Pure);
    words
});

static VOLATILE: LazyLock<Words> = LazyLock::new(|| {
    let mut words = Words::default();
    words.add(VOLATILE_WORDS, Meaning::Unlisted);
    words
});

/// Names of functions, some of them only the beginnings of names.
#[derive(Default)]
struct Words {
    whole: BTreeMap<&'static str, Meaning>,
    beginnings: Vec<(&'static str, Meaning)>,
}

impl Words {
    /// Adds words with blanks between them; one that ends with `*` stands for all that begin so.
    fn add(&mut self, text: &'static str, meaning: Meaning) {
        for word in text.split_ascii_whitespace() {
            match word.strip_suffix('*') {
                Some(beginning) => self.beginnings.push((beginning, meaning)),
                None => drop(self.whole.insert(word, meaning)),
            }
        }
    }

    fn of(&self, function: &str) -> Option<Meaning> {
        let whole = self.whole.get(function).copied();
        whole.or_else(|| {
            let mut beginnings = self.beginnings.iter();
            let found = beginnings.find(|(beginning, _)| function.starts_with(beginning));
            found.map(|(_, meaning)| *meaning)
        })
    }
}

const SCHEMAS: &[(&str, Effect, &str)] = &[
    (
        "cron",
        Effect::Escape,
        "it schedules what runs later, out of sight",
    ),
    ("net", Effect::Escape, "it sends requests from the server"),
    (
        "aws_s3",
        Effect::Escape,
        "it moves data to or from elsewhere",
    ),
    ("aws_lambda", Effect::Escape, "it runs code elsewhere"),
    ("partman", Effect::Destroy, "it may drop partitions"),
    ("repack", Effect::Interrupt, "it rewrites a table"),
];

const ACTS: &[(&str, Effect, &str)] = &[
    (
        "dblink*",
        Effect::Escape,
        "it works over a connection of its own",
    ),
    (
        "lo_export lo_import",
        Effect::Escape,
        "it reads or writes a file of the server",
    ),
    (
        "pg_read_file pg_read_binary_file pg_stat_file pg_ls_dir pg_ls_logdir pg_ls_waldir \
         pg_ls_tmpdir pg_ls_archive_statusdir pg_ls_summariesdir pg_ls_logicalsnapdir \
         pg_ls_logicalmapdir pg_ls_replslotdir pg_file_* pg_write_* pg_logdir_ls",
        Effect::Escape,
        "it reads or writes files of the server",
    ),
    (
        "http http_* plsh* pg_background_* pg_execute_*",
        Effect::Escape,
        "it acts outside of the database",
    ),
    (
        "pg_create_physical_replication_slot pg_create_logical_replication_slot \
         pg_copy_physical_replication_slot pg_copy_logical_replication_slot",
        Effect::Escape,
        "it opens a way for the data to leave by replication",
    ),
    (
        "pg_drop_replication_slot pg_replication_* pg_logical_slot_get_* pg_switch_wal \
         pg_switch_xlog pg_promote pg_wal_replay_* pg_sync_replication_slots pg_backup_start \
         pg_backup_stop pg_start_backup pg_stop_backup binary_upgrade_*",
        Effect::Disarm,
        "it takes away or changes what a way back rests on",
    ),
    ("lo_unlink", Effect::Destroy, "a large object is gone"),
    (
        "heap_force_kill heap_force_freeze",
        Effect::Destroy,
        "it removes rows beneath the server",
    ),
    ("drop_chunks", Effect::Destroy, "it drops chunks of a table"),
    (
        "pg_terminate_backend pg_cancel_backend",
        Effect::Interrupt,
        "it ends what another session does",
    ),
    (
        "pg_reload_conf pg_rotate_logfile",
        Effect::Interrupt,
        "it makes the server read its settings or change its log",
    ),
    (
        "pg_stat_reset* pg_stat_statements_reset pg_truncate_visibility_map pg_buffercache_evict*",
        Effect::Interrupt,
        "it takes away what the server knows to run well",
    ),
    (
        "setval",
        Effect::Interrupt,
        "it sets a sequence, which no ROLLBACK takes back",
    ),
    (
        "pg_logical_emit_message pg_create_restore_point pg_log_standby_snapshot",
        Effect::Write,
        "it writes to the WAL, which no ROLLBACK takes back",
    ),
];

const WRITES: &[(&str, &str)] = &[
    ("nextval", "it takes a number from a sequence"),
    (
        "lo_create lo_creat lo_from_bytea lo_put lo_open lowrite lo_truncate lo_truncate64",
        "it writes a large object",
    ),
    ("pg_notify", "it notifies other sessions"),
    (
        "pg_import_system_collations brin_* gin_clean_pending_list pg_restore_* pg_clear_*",
        "it writes what the server keeps for itself",
    ),
];

const TEXT: &str = "query_to_xml query_to_xmlschema query_to_xml_and_xmlschema cursor_to_xml \
                    cursor_to_xmlschema ts_stat ts_rewrite crosstab crosstab2 crosstab3 crosstab4 \
                    crosstabn xpath_table connectby";

const VOLATILE_WORDS: &str = "random random_normal gen_random_uuid uuidv4 uuidv7 uuid_generate_* \
                        clock_timestamp timeofday nextval gen_salt gen_random_bytes setseed";

/// Built-in functions and aggregates that compute or read and do nothing else.
///
/// # Source
/// `pg_proc` of PostgreSQL 15 and 18, read by hand; whatever is missing is only run READ ONLY first.
const PURE_WORDS: &str = "\
    abs acos acosd acosh age any_value area array_* ascii asin asind asinh atan* avg bit_* bool_and \
    bool_or bound_box box broadcast btrim cardinality cbrt ceil ceiling center char_length \
    character_length chr circle clock_timestamp coalesce col_description concat concat_ws \
    convert convert_from convert_to corr cos* cot cotd count covar_pop covar_samp crc32 crc32c \
    cume_dist current_catalog current_database current_date current_query current_role \
    current_schema current_schemas current_setting current_time current_timestamp current_user \
    currtid2 currval date date_* decode degrees dense_rank diagonal diameter digest div enum_* \
    encode erf erfc every exp extract factorial family first_value floor format \
    format_type gamma gcd gen_random_bytes gen_random_uuid gen_salt generate_series \
    generate_subscripts get_bit get_byte get_current_ts_config greatest grouping has_* hashtext \
    hashtextextended height host hostmask hstore inet_* initcap isempty isclosed isfinite isopen json_* \
    json jsonb jsonb_* justify_* lag last_value lastval lcm lead least left length lgamma line ln localtime \
    localtimestamp log log10 lower lower_inc lower_inf lpad lseg ltrim macaddr8_set7bit make_* \
    masklen max md5 merge_action min min_scale mod mode multirange netmask network normalize now \
    npoints nth_value ntile nullif num_nonnulls num_nulls numnode obj_description octet_length \
    overlaps overlay parse_ident path pclose percent_rank percentile_cont percentile_disc \
    phraseto_tsquery pi plainto_tsquery point polygon popen position power pow \
    pg_advisory_lock pg_advisory_lock_shared pg_advisory_unlock pg_advisory_unlock_all \
    pg_advisory_unlock_shared pg_advisory_xact_lock pg_advisory_xact_lock_shared \
    pg_try_advisory_lock pg_try_advisory_lock_shared pg_try_advisory_xact_lock \
    pg_try_advisory_xact_lock_shared pg_backend_pid pg_blocking_pids \
    pg_char_to_encoding pg_client_encoding pg_collation_actual_version pg_collation_for \
    pg_collation_is_visible pg_column_compression pg_column_size pg_conf_load_time \
    pg_control_* pg_conversion_is_visible pg_current_logfile pg_current_snapshot \
    pg_current_wal_* pg_current_xact_id pg_current_xact_id_if_assigned pg_database_size \
    pg_describe_object pg_encoding_to_char pg_export_snapshot pg_filenode_relation \
    pg_function_is_visible pg_get_* pg_has_role pg_identify_object pg_identify_object_as_address \
    pg_index_* pg_indexam_* pg_indexes_size pg_input_error_info pg_input_is_valid \
    pg_is_in_recovery pg_is_other_temp_schema pg_is_wal_replay_paused pg_jit_available \
    pg_last_committed_xact pg_last_wal_* pg_last_xact_* pg_listening_channels pg_lock_status \
    pg_my_temp_schema pg_numa_available pg_opclass_is_visible pg_operator_is_visible \
    pg_opfamily_is_visible pg_options_to_table pg_partition_ancestors pg_partition_root \
    pg_partition_tree pg_postmaster_start_time pg_prepared_statement pg_prewarm \
    pg_relation_filenode pg_relation_filepath pg_relation_is_publishable pg_relation_size \
    pg_safe_snapshot_blocking_pids pg_sequence_last_value pg_sequence_parameters \
    pg_settings_get_flags pg_show_all_settings pg_size_bytes pg_size_pretty pg_snapshot_* \
    pg_stat_force_next_flush pg_stat_get_* pg_stat_clear_snapshot pg_statistics_obj_is_visible \
    pg_table_is_visible pg_table_size pg_tablespace_databases pg_tablespace_location \
    pg_tablespace_size pg_timezone_abbrevs pg_timezone_names pg_total_relation_size \
    pg_trigger_depth pg_ts_config_is_visible pg_ts_dict_is_visible pg_ts_parser_is_visible \
    pg_ts_template_is_visible pg_type_is_visible pg_typeof pg_visible_in_snapshot pg_wal_lsn_diff \
    pg_walfile_name pg_walfile_name_offset pg_xact_commit_timestamp pg_xact_status querytree \
    quote_ident quote_literal quote_nullable radians radius random random_normal range_agg \
    range_intersect_agg range_merge rank regexp_* regr_* repeat replace reverse right round row \
    row_number row_security_active row_to_json rpad rtrim scale session_user set_bit set_byte \
    set_masklen setseed setweight sha224 sha256 sha384 sha512 shobj_description sign similarity sin* slope \
    split_part sqrt starts_with statement_timestamp stddev stddev_pop stddev_samp string_agg \
    string_to_array string_to_table strip strpos strict_word_similarity substr substring sum \
    suppress_redundant_updates_trigger system_user table_to_xml tan* text timeofday timezone to_ascii to_bin to_char to_date \
    to_hex to_json to_jsonb to_number to_oct to_reg* to_timestamp to_tsquery to_tsvector \
    transaction_timestamp translate trim trim_array trim_scale trunc ts_debug ts_delete ts_filter \
    ts_headline ts_lexize ts_parse ts_rank ts_rank_cd ts_token_type tsquery_phrase \
    tsvector_to_array txid_* unaccent unicode_assigned unicode_version unistr unnest upper upper_inc upper_inf user \
    uuid_extract_* uuid_generate_* uuidv4 uuidv7 var_pop var_samp variance version \
    websearch_to_tsquery width width_bucket word_similarity xmlagg xmlcomment xmlconcat \
    xmlexists xmlforest xpath xpath_exists xml_is_well_formed xml_is_well_formed_content \
    xml_is_well_formed_document float4 float8 int2 int4 int8 numeric varchar bpchar \
    interval time timestamp timestamptz like_escape bytea bool";
