// What node-postgres does with the protocol, test by test; the same directly and through the door.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { test } from 'node:test'

const pg = createRequire(process.env.HOLDFAST_NODE + '/')('pg')

async function withClient(work) {
  const client = new pg.Client()
  await client.connect()
  try {
    await work(client)
  } finally {
    await client.end()
  }
}

const check = (name, work) => test(name, { timeout: 20000 }, () => withClient(work))
const code = (wanted) => (error) => error.code === wanted

check('simple query', async (c) => {
  const r = await c.query('SELECT 1 AS a, NULL AS b, $$x$$ AS c')
  assert.deepEqual(r.rows, [{ a: 1, b: null, c: 'x' }])
  assert.equal(r.command, 'SELECT')
})
check('several statements in one text', async (c) => {
  const r = await c.query('SELECT 1 AS a; SELECT 2 AS b; CREATE TEMP TABLE t (n int); INSERT INTO t VALUES (1), (2)')
  assert.deepEqual(r.map((one) => [one.command, one.rowCount]), [['SELECT', 1], ['SELECT', 1], ['CREATE', null], ['INSERT', 2]])
})
check('empty query', async (c) => assert.equal((await c.query('')).rowCount, null))
check('parameters of many types', async (c) => {
  const now = new Date(0)
  const r = await c.query('SELECT $1::int8 a, $2::text b, $3::bytea c, $4::jsonb d, $5::timestamptz e, $6::int[] f, $7::bool g', ['9007199254740993', 'ä\u{1F600}', Buffer.from([0, 255]), { k: [1] }, now, [1, 2], true])
  assert.deepEqual(r.rows[0], { a: '9007199254740993', b: 'ä\u{1F600}', c: Buffer.from([0, 255]), d: { k: [1] }, e: now, f: [1, 2], g: true })
})
check('binary results', async (c) => {
  const r = await c.query({ text: 'SELECT $1::int4 AS n', values: [7], binary: true })
  assert.equal(r.rows[0].n, 7)
})
check('a named statement is prepared once', async (c) => {
  for (const n of [1, 2, 3]) assert.equal((await c.query({ name: 'one', text: 'SELECT $1::int AS n', values: [n] })).rows[0].n, n)
  const r = await c.query("SELECT count(*)::int AS n FROM pg_prepared_statements WHERE name = 'one'")
  assert.equal(r.rows[0].n, 1)
})
check('DEALLOCATE takes a named statement away', async (c) => {
  await c.query({ name: 'gone', text: 'SELECT 1' })
  await c.query('DEALLOCATE ALL')
  await assert.rejects(c.query({ name: 'gone', text: 'SELECT 1' }), code('26000'))
  assert.equal((await c.query('SELECT 2 AS n')).rows[0].n, 2)
})
check('row mode array and fields', async (c) => {
  const r = await c.query({ text: 'SELECT 1 AS x, 2 AS x', rowMode: 'array' })
  assert.deepEqual(r.rows, [[1, 2]])
  assert.deepEqual(r.fields.map((f) => [f.name, f.dataTypeID]), [['x', 23], ['x', 23]])
})
check('an error has its fields and the session goes on', async (c) => {
  const position = await c.query('SELECT 1, nowhere').catch((e) => e)
  assert.deepEqual([position.code, position.position, position.severity], ['42703', '11', 'ERROR'])
  await c.query('CREATE TEMP TABLE u (n int PRIMARY KEY); INSERT INTO u VALUES (1)')
  const unique = await c.query('INSERT INTO u VALUES (1)').catch((e) => e)
  assert.deepEqual([unique.code, unique.table, unique.constraint], ['23505', 'u', 'u_pkey'])
  await assert.rejects(c.query('SELECT $1::int', ['x']), code('22P02'))
  assert.equal((await c.query('SELECT 3 AS n')).rows[0].n, 3)
})
check('an error in the middle of several statements undoes them', async (c) => {
  await c.query('CREATE TEMP TABLE v (n int)')
  await assert.rejects(c.query('INSERT INTO v VALUES (1); SELECT 1/0; INSERT INTO v VALUES (2)'), code('22012'))
  assert.equal((await c.query('SELECT count(*)::int AS n FROM v')).rows[0].n, 0)
})
check('queued queries answer in order', async (c) => {
  const all = await Promise.all([1, 2, 3, 4, 5].map((n) => c.query('SELECT $1::int AS n, pg_sleep(0.01)', [n])))
  assert.deepEqual(all.map((r) => r.rows[0].n), [1, 2, 3, 4, 5])
})
check('transactions commit, roll back and fail', async (c) => {
  await c.query('DROP TABLE IF EXISTS node_rows')
  await c.query('CREATE TABLE node_rows (n int)')
  await c.query('BEGIN')
  await c.query('INSERT INTO node_rows VALUES ($1)', [1])
  await c.query('ROLLBACK')
  await c.query('BEGIN')
  await c.query('INSERT INTO node_rows VALUES ($1)', [2])
  await c.query('SAVEPOINT s')
  await assert.rejects(c.query('SELECT 1/0'), code('22012'))
  await assert.rejects(c.query('SELECT 1'), code('25P02'))
  await c.query('ROLLBACK TO s')
  assert.equal((await c.query('COMMIT')).command, 'COMMIT')
  await c.query('BEGIN')
  await assert.rejects(c.query('nonsense'), code('42601'))
  assert.equal((await c.query('COMMIT')).command, 'ROLLBACK')
  await withClient(async (other) => assert.deepEqual((await other.query('SELECT n FROM node_rows')).rows, [{ n: 2 }]))
  await c.query('DROP TABLE node_rows')
})
check('RETURNING and row counts', async (c) => {
  await c.query('CREATE TEMP TABLE w (n int)')
  const r = await c.query('INSERT INTO w SELECT generate_series(1, 10) RETURNING n')
  assert.deepEqual([r.rowCount, r.rows.length], [10, 10])
  assert.equal((await c.query('UPDATE w SET n = n + 1 WHERE n > $1', [5])).rowCount, 5)
  assert.equal((await c.query('DELETE FROM w')).rowCount, 10)
})
check('many rows and long values', async (c) => {
  const r = await c.query("SELECT n, repeat('x', 100) AS x FROM generate_series(1, 20000) n")
  assert.equal(r.rows.length, 20000)
  const long = 'y'.repeat(800000)
  assert.equal((await c.query('SELECT $1::text AS y', [long])).rows[0].y, long)
})
check('notices and notifications', async (c) => {
  const notices = []
  c.on('notice', (n) => notices.push(n.message))
  await c.query("DO $$ BEGIN RAISE NOTICE 'said'; END $$")
  assert.deepEqual(notices, ['said'])
  await c.query('LISTEN node_channel')
  const heard = new Promise((done) => c.on('notification', done))
  await withClient((other) => other.query("SELECT pg_notify('node_channel', 'there')"))
  const n = await heard
  assert.deepEqual([n.channel, n.payload], ['node_channel', 'there'])
})
check('the process id is that of the server', async (c) => {
  assert.equal(c.processID, (await c.query('SELECT pg_backend_pid() AS p')).rows[0].p)
})
check('a running query is cancelled by its key', async (c) => {
  const running = c.query('SELECT pg_sleep(30)').catch((e) => e)
  const other = new pg.Client()
  await new Promise((done) => setTimeout(done, 200))
  const query = c._activeQuery ?? c.activeQuery
  other.cancel(c, query)
  assert.equal((await running).code, '57014')
  assert.equal((await c.query('SELECT 4 AS n')).rows[0].n, 4)
})
check('a statement timeout of the client ends the statement', async (c) => {
  await c.query("SET statement_timeout = '50ms'")
  await assert.rejects(c.query('SELECT pg_sleep(30)'), code('57014'))
  await c.query('RESET statement_timeout')
  assert.equal((await c.query('SELECT 5 AS n')).rows[0].n, 5)
})
test('start-up options and application name', { timeout: 20000 }, async () => {
  const c = new pg.Client({ application_name: 'suite', options: '-c work_mem=7MB' })
  await c.connect()
  const r = await c.query("SELECT current_setting('application_name') AS a, current_setting('work_mem') AS w")
  assert.deepEqual(r.rows[0], { a: 'suite', w: '7MB' })
  await c.end()
})
test('a wrong password is refused', { timeout: 20000 }, async () => {
  const c = new pg.Client({ password: 'wrong' })
  await assert.rejects(c.connect())
})
test('a pool gives clients back', { timeout: 20000 }, async () => {
  const pool = new pg.Pool({ max: 4 })
  const all = await Promise.all(Array.from({ length: 40 }, (_, n) => pool.query('SELECT $1::int AS n', [n])))
  assert.deepEqual(all.map((r) => r.rows[0].n), Array.from({ length: 40 }, (_, n) => n))
  await pool.end()
})
test('a terminated session tells its client', { timeout: 20000 }, async () => {
  const c = new pg.Client()
  c.on('error', () => {})
  await c.connect()
  const ended = new Promise((done) => c.on('end', done))
  await withClient((other) => other.query('SELECT pg_terminate_backend($1)', [c.processID]))
  await ended
})
