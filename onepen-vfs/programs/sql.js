// The parts of sql.py that `onepen trace` is measured with, over better-sqlite3.
'use strict';

const Database = require('better-sqlite3');

const db = new Database(process.argv[2]);
db.pragma('synchronous = NORMAL');
db.exec(`CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, b TEXT);
  CREATE INDEX t_a ON t (a);
  WITH RECURSIVE s (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 20000)
  INSERT INTO t SELECT i, i * 7919 % 20000, hex(i) || ' some text' FROM s`);
const [read, write, add, put, begin, commit] = [
  'SELECT b FROM t WHERE id = ?',
  'UPDATE t SET b = ? WHERE id = ?',
  'UPDATE t SET a = a + 1 WHERE id = ?',
  'INSERT OR REPLACE INTO t VALUES (?, ?, ?)',
  'BEGIN',
  'COMMIT',
].map((sql) => db.prepare(sql));

const parts = {
  autocommit_writes(times) {
    for (let i = 0; i < times; i += 1) write.run(String(i), (i * 31) % 20000);
  },
  autocommit_reads(times) {
    for (let i = 0; i < times; i += 1) read.get((i * 31) % 20000);
  },
  transactions(times) {
    for (let n = 0; n < times; n += 1) {
      begin.run();
      for (let i = 0; i < 33; i += 1) {
        read.get((i * 601) % 20000);
        add.run((i * 601) % 20000);
        put.run(20001 + i, i, 'new');
      }
      commit.run();
    }
  },
};

const lines = require('readline').createInterface({ input: process.stdin });
lines.on('line', (line) => {
  const [name, times] = line.split(' ');
  const began = performance.now();
  parts[name](Number(times));
  console.log((performance.now() - began) / 1000);
});
console.log('ready');
