// better-sqlite3: `db.transaction`, get, run.
'use strict';

const Database = require('better-sqlite3');
const { many, options } = require('./worker.js');

const [path, given] = options();
const db = new Database(path);
const read = db.prepare('SELECT n FROM counter WHERE id = 1');
const write = db.prepare('UPDATE counter SET n = ? WHERE id = 1');

const transaction = db.transaction(() => {
  write.run(read.get().n + 1);
});

many(Number(given.transactions), transaction);
