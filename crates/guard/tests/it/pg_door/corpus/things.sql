WITH n AS (
  SELECT oid, nspname FROM pg_namespace
  WHERE nspname NOT LIKE 'pg\_%' AND nspname <> 'information_schema'
), r AS (
  SELECT format('%I.%I', n.nspname, c.relname) AS name, c.*
  FROM pg_class c JOIN n ON n.oid = c.relnamespace WHERE c.relpersistence <> 't'
)
SELECT 'schema', n.nspname::text, concat(s.nspowner::regrole, ' ', s.nspacl) FROM n JOIN pg_namespace s USING (oid)
UNION ALL
SELECT 'relation', r.name, concat(r.relkind, r.relpersistence, r.relrowsecurity, r.relforcerowsecurity, r.relreplident,
  r.relispartition, ' ', r.relowner::regrole, ' ', r.relacl, ' ', r.reloptions, ' ', pg_get_expr(r.relpartbound, r.oid))
  FROM r WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c')
UNION ALL
SELECT 'column', r.name || ' ' || a.attname, concat(format_type(a.atttypid, a.atttypmod), ' ', a.attnotnull, ' ',
  pg_get_expr(d.adbin, d.adrelid), ' ', a.attidentity, ' ', a.attgenerated, ' ', a.attacl)
  FROM r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f')
UNION ALL
SELECT 'constraint', coalesce(r.name, c.contypid::regtype::text) || ' ' || c.conname, concat(pg_get_constraintdef(c.oid), ' ', c.convalidated)
  FROM pg_constraint c JOIN n ON n.oid = c.connamespace LEFT JOIN r ON r.oid = c.conrelid WHERE c.contype <> 'n'
UNION ALL
SELECT 'index', r.name, concat(pg_get_indexdef(r.oid), ' ', i.indisvalid) FROM r JOIN pg_index i ON i.indexrelid = r.oid
UNION ALL
SELECT CASE WHEN t.tgisinternal THEN 'inner trigger' ELSE 'trigger' END, r.name || ' ' || t.tgname,
  concat(t.tgenabled, ' ', CASE WHEN NOT t.tgisinternal THEN pg_get_triggerdef(t.oid) END)
  FROM pg_trigger t JOIN r ON r.oid = t.tgrelid
UNION ALL
SELECT 'rule', r.name || ' ' || w.rulename, concat(w.ev_enabled, ' ', pg_get_ruledef(w.oid)) FROM pg_rewrite w JOIN r ON r.oid = w.ev_class
UNION ALL
SELECT 'policy', r.name || ' ' || p.polname, concat(p.polcmd, p.polpermissive, p.polroles, ' ', pg_get_expr(p.polqual, p.polrelid), ' ',
  pg_get_expr(p.polwithcheck, p.polrelid)) FROM pg_policy p JOIN r ON r.oid = p.polrelid
UNION ALL
SELECT 'function', p.oid::regprocedure::text, concat(CASE WHEN p.prokind IN ('f', 'p') THEN pg_get_functiondef(p.oid) END, ' ',
  p.proowner::regrole, ' ', p.proacl) FROM pg_proc p JOIN n ON n.oid = p.pronamespace
UNION ALL
SELECT 'type', t.oid::regtype::text, concat(t.typtype, ' ', t.typowner::regrole, ' ', t.typacl, ' ', t.typnotnull, ' ', t.typdefault, ' ',
  (SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid AND e.enumlabel IN ('new', 'paid', 'gone')))
  FROM pg_type t JOIN n ON n.oid = t.typnamespace WHERE t.typcategory <> 'A'
UNION ALL
SELECT 'counts by', r.name, concat(s.seqtypid::regtype, ' ', s.seqstart, ' ', s.seqincrement, ' ', s.seqmax, ' ', s.seqmin, ' ', s.seqcycle)
  FROM r JOIN pg_sequence s ON s.seqrelid = r.oid
UNION ALL
SELECT 'inherits', i.inhrelid::regclass || ' from ' || i.inhparent::regclass, i.inhdetachpending::text FROM pg_inherits i JOIN r ON r.oid = i.inhrelid
UNION ALL
SELECT 'role', rolname, concat(rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls, rolconnlimit, ' ',
  rolvaliduntil, ' ', md5(coalesce(rolpassword, ''))) FROM pg_authid WHERE rolname NOT LIKE 'holdfast\_%' AND rolname NOT LIKE 'pg\_%'
UNION ALL
SELECT 'member', m.member::regrole || ' of ' || m.roleid::regrole, '' FROM pg_auth_members m
  WHERE m.member::regrole::text NOT LIKE 'holdfast\_%' AND m.roleid::regrole::text NOT LIKE 'holdfast\_%' GROUP BY 2
UNION ALL
SELECT 'setting', concat(d.datname, ' ', s.setrole), s.setconfig::text FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase
  WHERE (s.setdatabase = 0 OR d.datname = current_database()) AND s.setrole::regrole::text NOT LIKE 'holdfast\_%'
UNION ALL
SELECT 'database', '', concat(datdba::regrole, ' ', datallowconn, ' ', datconnlimit, ' ',
  (SELECT string_agg(x::text, ',' ORDER BY x::text) FROM unnest(coalesce(datacl, acldefault('d', datdba))) x WHERE x::text NOT LIKE 'holdfast%')) FROM pg_database WHERE datname = current_database()
UNION ALL
SELECT 'default rights', concat(defaclrole::regrole, ' ', defaclnamespace, ' ', defaclobjtype), defaclacl::text FROM pg_default_acl
UNION ALL
SELECT 'extension', extname, extversion FROM pg_extension
UNION ALL
SELECT 'server', srvname, concat(srvoptions, ' ', srvacl) FROM pg_foreign_server
UNION ALL
SELECT 'publication', pubname, concat(puballtables, ' ', pubinsert, ' ', pubdelete) FROM pg_publication
UNION ALL
SELECT 'subscription', subname::text, '' FROM pg_subscription
UNION ALL
SELECT 'event trigger', evtname, evtenabled::text FROM pg_event_trigger
UNION ALL
SELECT 'cast', concat(castsource::regtype, ' ', casttarget::regtype), castcontext::text FROM pg_cast WHERE oid >= 16384
UNION ALL
SELECT 'operator', o.oid::regoperator::text, oprcode::text FROM pg_operator o WHERE o.oid >= 16384
UNION ALL
SELECT 'statistics', stxname, '' FROM pg_statistic_ext
UNION ALL
SELECT 'large object', oid::text, md5(lo_get(oid)) FROM pg_largeobject_metadata
UNION ALL
SELECT 'prepared', gid, '' FROM pg_prepared_xacts WHERE database = current_database()
UNION ALL
SELECT 'comment', concat(classoid, ' ', objoid, ' ', objsubid), description FROM pg_description WHERE objoid >= 16384
