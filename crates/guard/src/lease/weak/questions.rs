//! What is looked for, one question each: which objects, what they do to a lease, what to do.

use super::{Concerns, Severity};

/// One thing to look for.
pub(super) struct Question {
    /// What it is; never changed.
    pub id: &'static str,
    pub severity: Severity,
    pub concerns: Concerns,
    /// Yields one text a row: the object, quoted as SQL writes it. [`LEASES`] stands before it.
    pub sql: &'static str,
    pub effect: &'static str,
    pub fix: &'static str,
}

/// Whose rights a lease has: those of two predefined roles, and with `--schema` the owner's.
///
/// `own` has the schemas that are not the server's.
pub(super) const LEASES: &str = "\
    plain(oid) AS (SELECT oid FROM pg_roles WHERE rolname IN ('pg_read_all_data', 'pg_write_all_data')), \
    owner(oid) AS (SELECT d.datdba FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba \
      WHERE d.datname = current_database() AND NOT r.rolsuper), \
    lease(oid) AS (SELECT oid FROM plain UNION ALL SELECT oid FROM owner), \
    own(oid) AS (SELECT oid FROM pg_namespace WHERE nspname <> 'information_schema' AND nspname !~ '^pg_')";

/// Everything that is looked for, by subject.
pub(super) const QUESTIONS: &[Question] = &[
    Question {
        id: "definer-functions-of-superusers",
        severity: Severity::High,
        concerns: Concerns::Every,
        sql: "SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_roles r ON r.oid = p.proowner \
              WHERE p.prosecdef AND r.rolsuper AND p.prorettype <> 'event_trigger'::regtype \
              AND (EXISTS (SELECT FROM lease l WHERE has_function_privilege(l.oid, p.oid, 'EXECUTE')) \
                OR EXISTS (SELECT FROM pg_trigger t WHERE t.tgfoid = p.oid AND NOT t.tgisinternal))",
        effect: "whoever calls it acts as a superuser inside it: it can read files, run programs or open \
                 connections before anything is measured",
        fix: "REVOKE EXECUTE ON FUNCTION … FROM PUBLIC, or give it to an ordinary role with ALTER FUNCTION … OWNER TO",
    },
    Question {
        id: "definer-functions",
        severity: Severity::Medium,
        concerns: Concerns::Every,
        sql: "SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_roles r ON r.oid = p.proowner \
              WHERE p.prosecdef AND NOT r.rolsuper AND p.prorettype <> 'event_trigger'::regtype \
              AND (EXISTS (SELECT FROM lease l WHERE NOT pg_has_role(l.oid, p.proowner, 'MEMBER') \
                    AND has_function_privilege(l.oid, p.oid, 'EXECUTE')) \
                OR EXISTS (SELECT FROM pg_trigger t WHERE t.tgfoid = p.oid AND NOT t.tgisinternal))",
        effect: "whoever calls it has its owner's rights inside it: a lease that only reads can write with it, \
                 within the budget of the gate",
        fix: "REVOKE EXECUTE ON FUNCTION … FROM PUBLIC and GRANT it to the application's role",
    },
    Question {
        id: "untrusted-functions",
        severity: Severity::High,
        concerns: Concerns::Every,
        sql: "SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang \
              WHERE l.lanispl AND NOT l.lanpltrusted AND p.pronamespace IN (SELECT oid FROM own) \
              AND (EXISTS (SELECT FROM lease l WHERE has_function_privilege(l.oid, p.oid, 'EXECUTE')) \
                OR EXISTS (SELECT FROM pg_trigger t WHERE t.tgfoid = p.oid AND NOT t.tgisinternal))",
        effect: "it acts on the server's machine, with the rights of the server's account, where no transaction \
                 takes anything back",
        fix: "REVOKE EXECUTE ON FUNCTION … FROM PUBLIC",
    },
    Question {
        id: "native-functions",
        severity: Severity::High,
        concerns: Concerns::Every,
        sql: "SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang \
              WHERE l.lanname IN ('c', 'internal') AND p.pronamespace IN (SELECT oid FROM own) \
              AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass \
                AND d.objid = p.oid AND d.deptype = 'e') \
              AND EXISTS (SELECT FROM lease l WHERE has_function_privilege(l.oid, p.oid, 'EXECUTE'))",
        effect: "it runs as machine code in the server and belongs to no extension, so nobody can tell what it does",
        fix: "REVOKE EXECUTE ON FUNCTION … FROM PUBLIC, or drop it",
    },
    Question {
        id: "untrusted-languages",
        severity: Severity::Low,
        concerns: Concerns::Every,
        sql: "SELECT quote_ident(lanname) FROM pg_language WHERE lanispl AND NOT lanpltrusted",
        effect: "superusers can write functions in it that act outside the database, and PUBLIC may call them \
                 unless that is taken away",
        fix: "DROP LANGUAGE … where nothing needs it",
    },
    Question {
        id: "server-functions",
        severity: Severity::High,
        concerns: Concerns::Every,
        sql: "SELECT DISTINCT p.oid::regprocedure::text FROM pg_init_privs i JOIN pg_proc p ON p.oid = i.objoid \
              WHERE i.classoid = 'pg_proc'::regclass \
              AND NOT EXISTS (SELECT FROM aclexplode(i.initprivs) a \
                WHERE a.grantee = 0 AND a.privilege_type = 'EXECUTE') \
              AND EXISTS (SELECT FROM plain l WHERE has_function_privilege(l.oid, p.oid, 'EXECUTE'))",
        effect: "it was given to PUBLIC although the server keeps it from everybody: files, other sessions, \
                 settings or connections of the server are within reach",
        fix: "REVOKE EXECUTE ON FUNCTION … FROM PUBLIC",
    },
    Question {
        id: "outward-functions",
        severity: Severity::Medium,
        concerns: Concerns::Every,
        sql: "SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang \
              WHERE l.lanname NOT IN ('c', 'internal') AND p.pronamespace IN (SELECT oid FROM own) \
              AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype) AND p.prokind IN ('f', 'p') \
              AND EXISTS (SELECT FROM lease l WHERE has_function_privilege(l.oid, p.oid, 'EXECUTE')) \
              AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass \
                AND d.objid = p.oid AND d.deptype = 'e') \
              AND COALESCE(pg_get_function_sqlbody(p.oid), p.prosrc) \
                ~* '\\m(dblink\\w*|http(_\\w+)?\\s*\\(|net\\.http_\\w+|lo_export|lo_import|pg_background_launch|cron\\.\\w+|aws_\\w+\\.|program\\M)'",
        effect: "its text names what leaves the transaction (connections, files, jobs): a call is not taken back \
                 by ROLLBACK",
        fix: "REVOKE EXECUTE ON FUNCTION … FROM PUBLIC and GRANT it to the application's role",
    },
    Question {
        id: "outward-triggers",
        severity: Severity::Medium,
        concerns: Concerns::Writing,
        sql: "SELECT format('%I on %s', t.tgname, t.tgrelid::regclass) FROM pg_trigger t \
              JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_language l ON l.oid = p.prolang \
              WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND (l.lanispl AND NOT l.lanpltrusted \
                OR l.lanname NOT IN ('c', 'internal') AND COALESCE(pg_get_function_sqlbody(p.oid), p.prosrc) \
                ~* '\\m(dblink\\w*|http(_\\w+)?\\s*\\(|net\\.http_\\w+|lo_export|lo_import|pg_background_launch|cron\\.\\w+|aws_\\w+\\.|program\\M)')",
        effect: "an ordinary change of a row sets off what no ROLLBACK takes back, also when the change is then held",
        fix: "have the trigger write into a table that a worker reads after the COMMIT",
    },
    Question {
        id: "notifying-triggers",
        severity: Severity::Low,
        concerns: Concerns::Writing,
        sql: "SELECT format('%I on %s', t.tgname, t.tgrelid::regclass) FROM pg_trigger t \
              JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_language l ON l.oid = p.prolang \
              WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND l.lanname NOT IN ('c', 'internal') \
              AND COALESCE(pg_get_function_sqlbody(p.oid), p.prosrc) ~* '\\m(pg_notify|notify)\\M'",
        effect: "whoever listens acts on it after the COMMIT, with its own rights; the gate does not see that",
        fix: "look at what the listeners do when a row is changed, and keep it from destroying",
    },
    Question {
        id: "event-triggers",
        severity: Severity::Low,
        concerns: Concerns::Schema,
        sql: "SELECT quote_ident(evtname) FROM pg_event_trigger WHERE evtenabled <> 'D'",
        effect: "it runs code with every change of structure that a lease makes",
        fix: "read its function; nothing is to be done when it only records or refuses",
    },
    Question {
        id: "rules",
        severity: Severity::Low,
        concerns: Concerns::Writing,
        sql: "SELECT format('%I on %s', r.rulename, r.ev_class::regclass) FROM pg_rewrite r \
              JOIN pg_class c ON c.oid = r.ev_class WHERE r.rulename <> '_RETURN' AND r.ev_enabled <> 'D' \
              AND c.relnamespace IN (SELECT oid FROM own)",
        effect: "a statement does something else than it says; the gate measures what is done, and people read \
                 what was said",
        fix: "replace it by a trigger, or keep it in mind when a hold is decided",
    },
    Question {
        id: "foreign-servers",
        severity: Severity::Medium,
        concerns: Concerns::Every,
        sql: "SELECT format('%I (%I)', s.srvname, w.fdwname) FROM pg_foreign_server s \
              JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw \
              WHERE EXISTS (SELECT FROM lease l WHERE has_server_privilege(l.oid, s.oid, 'USAGE')) \
              OR EXISTS (SELECT FROM pg_foreign_table t WHERE t.ftserver = s.oid)",
        effect: "a read of its tables runs on another server, or reads a file, where no door judges it; writes are held",
        fix: "keep foreign tables in a database of their own, or map the lease's roles to nobody there",
    },
    Question {
        id: "user-mappings",
        severity: Severity::High,
        concerns: Concerns::Every,
        sql: "SELECT format('%s at %I', CASE m.umuser WHEN 0 THEN 'PUBLIC' ELSE quote_ident(m.usename) END, m.srvname) \
              FROM pg_user_mappings m WHERE m.umuser = 0 OR m.umuser IN (SELECT oid FROM owner)",
        effect: "a lease logs in to the other server with what is kept here, and has that user's rights there",
        fix: "DROP USER MAPPING FOR PUBLIC SERVER …; map the application's role alone",
    },
    Question {
        id: "connecting-extensions",
        severity: Severity::High,
        concerns: Concerns::Every,
        sql: "SELECT quote_ident(extname) FROM pg_extension WHERE extname IN ('dblink', 'http', 'pg_net', 'plsh', \
              'pg_background', 'aws_lambda', 'aws_s3', 'azure_storage', 'plproxy', 'pg_curl', 'amqp')",
        effect: "its functions open connections from the server: what they do there is judged by nobody and not \
                 taken back; code that builds statements from pieces is held before it starts",
        fix: "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA … FROM PUBLIC, or move it to a schema that only the \
              application may use",
    },
    Question {
        id: "scheduling-extensions",
        severity: Severity::High,
        concerns: Concerns::Writing,
        sql: "SELECT quote_ident(extname) FROM pg_extension WHERE extname IN ('pg_cron', 'pgagent', \
              'timescaledb', 'pg_partman', 'pg_squeeze')",
        effect: "a row in its tables, or a call, makes a worker act later with its own rights and without a door",
        fix: "keep its tables from PUBLIC and its functions from the lease's roles; look at every job before a hold \
              that touches them is approved",
    },
    Question {
        id: "wrapper-extensions",
        severity: Severity::Low,
        concerns: Concerns::Every,
        sql: "SELECT quote_ident(extname) FROM pg_extension WHERE extname ~ '_fdw$' AND extname NOT IN ('file_fdw', 'log_fdw') \
              OR extname IN ('multicorn', 'wrappers', 'pglogical', 'citus')",
        effect: "it leads to other servers or files once a server is made for it",
        fix: "REVOKE USAGE ON FOREIGN DATA WRAPPER … FROM every ordinary role; DROP EXTENSION … where nothing needs it",
    },
    Question {
        id: "file-extensions",
        severity: Severity::High,
        concerns: Concerns::Every,
        sql: "SELECT quote_ident(extname) FROM pg_extension WHERE extname IN ('adminpack', 'file_fdw', 'pg_surgery', \
              'orafce', 'pg_visibility', 'pg_repack', 'pg_dirtyread', 'log_fdw')",
        effect: "its functions read or change files of the server, or rows past every transaction",
        fix: "DROP EXTENSION … where nothing needs it; otherwise see that PUBLIC may execute none of its functions",
    },
    Question {
        id: "workers",
        severity: Severity::Medium,
        concerns: Concerns::Writing,
        sql: "SELECT name FROM (SELECT regexp_replace(btrim(one, ' \"'), '^.*/', '') \
                FROM regexp_split_to_table(current_setting('shared_preload_libraries'), ',') one) loaded(name) \
              WHERE name <> '' AND name NOT IN ('pg_stat_statements', 'auto_explain', 'auth_delay', 'passwordcheck', \
                'pgaudit', 'pg_prewarm', 'pg_qualstats', 'pg_stat_kcache', 'pg_wait_sampling', 'pg_hint_plan', \
                'pg_stat_monitor', 'sepgsql', 'credcheck', 'pg_failover_slots', 'plpgsql')",
        effect: "it is loaded into the server at its start and may run workers, which act without a door",
        fix: "take it out of shared_preload_libraries where nothing needs it; otherwise know what its workers obey",
    },
    Question {
        id: "written-by-readers",
        severity: Severity::Medium,
        concerns: Concerns::Every,
        sql: "SELECT c.oid::regclass::text FROM pg_class c, pg_roles r WHERE r.rolname = 'pg_read_all_data' \
              AND c.relkind IN ('r', 'p', 'v', 'f') AND c.relnamespace IN (SELECT oid FROM own) \
              AND (has_table_privilege(r.oid, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') \
                OR has_any_column_privilege(r.oid, c.oid, 'INSERT, UPDATE'))",
        effect: "PUBLIC may write it, so a lease that was issued to read can write it, within the budget of the gate",
        fix: "REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON … FROM PUBLIC",
    },
    Question {
        id: "structure-by-writers",
        severity: Severity::Medium,
        concerns: Concerns::Writing,
        sql: "SELECT c.oid::regclass::text FROM pg_class c, pg_roles r WHERE r.rolname = 'pg_write_all_data' \
              AND c.relkind IN ('r', 'p') AND c.relnamespace IN (SELECT oid FROM own) \
              AND has_table_privilege(r.oid, c.oid, 'TRUNCATE, REFERENCES, TRIGGER')",
        effect: "PUBLIC may empty it or put triggers and keys on it: a lease for rows then holds rights over structure, \
                 and the gate alone stands before them",
        fix: "REVOKE TRUNCATE, REFERENCES, TRIGGER ON … FROM PUBLIC",
    },
    Question {
        id: "public-create",
        severity: Severity::High,
        concerns: Concerns::Every,
        sql: "SELECT 'SCHEMA ' || quote_ident(n.nspname) FROM pg_namespace n WHERE n.oid IN (SELECT oid FROM own) \
              AND EXISTS (SELECT FROM plain l WHERE has_schema_privilege(l.oid, n.oid, 'CREATE')) \
              UNION ALL SELECT 'DATABASE ' || quote_ident(d.datname) FROM pg_database d \
              WHERE d.datname = current_database() \
              AND EXISTS (SELECT FROM plain l WHERE has_database_privilege(l.oid, d.oid, 'CREATE'))",
        effect: "every lease may put functions and tables there, which the application may call or read in place of \
                 its own; the gate holds what it recognises",
        fix: "REVOKE CREATE ON SCHEMA … FROM PUBLIC",
    },
    Question {
        id: "default-privileges",
        severity: Severity::Medium,
        concerns: Concerns::Every,
        sql: "SELECT DISTINCT format('%s of %I%s: %s', CASE d.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' \
                WHEN 'f' THEN 'functions' WHEN 'T' THEN 'types' WHEN 'n' THEN 'schemas' ELSE d.defaclobjtype::text END, \
                pg_get_userbyid(d.defaclrole), COALESCE(' in ' || quote_ident(n.nspname), ''), a.privilege_type) \
              FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace, aclexplode(d.defaclacl) a \
              WHERE a.grantee = 0 AND a.privilege_type <> 'SELECT' \
              AND NOT (d.defaclnamespace = 0 AND d.defaclobjtype IN ('f', 'T'))",
        effect: "what is made from now on gives PUBLIC rights, and so every lease",
        fix: "ALTER DEFAULT PRIVILEGES FOR ROLE … REVOKE ALL ON … FROM PUBLIC",
    },
    Question {
        id: "granted-roles",
        severity: Severity::High,
        concerns: Concerns::Every,
        sql: "SELECT DISTINCT quote_ident(r.rolname) FROM plain l, pg_roles r WHERE r.oid NOT IN (SELECT oid FROM plain) \
              AND pg_has_role(l.oid, r.oid, 'MEMBER')",
        effect: "pg_read_all_data or pg_write_all_data, which leases are members of, was made a member of it, so every \
                 lease has its rights, and what it owns",
        fix: "REVOKE … FROM pg_read_all_data, pg_write_all_data",
    },
    Question {
        id: "owner-powers",
        severity: Severity::High,
        concerns: Concerns::Schema,
        sql: "SELECT quote_ident(r.rolname) || CASE WHEN r.rolsuper THEN ' SUPERUSER' ELSE '' END \
                || CASE WHEN r.rolreplication THEN ' REPLICATION' ELSE '' END \
                || CASE WHEN r.rolbypassrls THEN ' BYPASSRLS' ELSE '' END \
                || CASE WHEN r.rolcreaterole THEN ' CREATEROLE' ELSE '' END \
              FROM owner o, pg_roles r WHERE pg_has_role(o.oid, r.oid, 'MEMBER') AND (r.rolsuper OR r.rolreplication \
                OR r.rolbypassrls OR r.rolcreaterole OR r.rolname IN ('pg_execute_server_program', \
                'pg_read_server_files', 'pg_write_server_files', 'pg_signal_backend', 'pg_checkpoint', \
                'pg_create_subscription', 'pg_maintain'))",
        effect: "a schema lease is a member of the owner and can become it: programs, files, other sessions or other \
                 roles of the server are then within reach",
        fix: "give the database to a role without such powers, and REVOKE them from its owner",
    },
    Question {
        id: "unlogged-tables",
        severity: Severity::Medium,
        concerns: Concerns::Writing,
        sql: "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relpersistence = 'u' AND c.relkind IN ('r', 'S') \
              AND c.relnamespace IN (SELECT oid FROM own) AND NOT EXISTS (SELECT FROM pg_depend d \
                WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i'))",
        effect: "no restore brings its rows back, so what a lease does to them has no way back",
        fix: "ALTER TABLE … SET LOGGED, unless its rows may be lost",
    },
    Question {
        id: "prepared-transactions",
        severity: Severity::Low,
        concerns: Concerns::Writing,
        sql: "SELECT 'max_prepared_transactions = ' || setting FROM pg_settings \
              WHERE name = 'max_prepared_transactions' AND setting::int > 0",
        effect: "what is prepared keeps its locks and its changes without a session, until somebody else ends it",
        fix: "set max_prepared_transactions to 0 where nothing uses two-phase commit",
    },
    Question {
        id: "trusted-superusers",
        severity: Severity::High,
        concerns: Concerns::Every,
        sql: "SELECT quote_ident(r.rolname) FROM pg_roles r WHERE r.rolsuper AND r.rolcanlogin \
              AND EXISTS (SELECT FROM pg_hba_file_rules h WHERE h.auth_method = 'trust' \
                AND h.database <> ARRAY['replication'] AND h.user_name && ARRAY['all', r.rolname::text])",
        effect: "pg_hba.conf lets it in without a password: an agent on a host that the entry names is a superuser \
                 without any lease",
        fix: "write scram-sha-256 in place of trust in pg_hba.conf, and reload",
    },
    Question {
        id: "trust-entries",
        severity: Severity::Medium,
        concerns: Concerns::Every,
        sql: "SELECT format('line %s: %s', h.line_number, concat_ws(' ', h.type, array_to_string(h.database, ','), \
                array_to_string(h.user_name, ','), h.address, h.netmask, h.auth_method)) \
              FROM pg_hba_file_rules h WHERE h.auth_method = 'trust'",
        effect: "whoever connects from there is asked for no password, so a lease is not the only way in",
        fix: "write scram-sha-256 in place of trust in pg_hba.conf, and reload",
    },
];
