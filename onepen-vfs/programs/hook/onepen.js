// Gets the extension into a Node program without a line of it changed:
// NODE_OPTIONS="--require …/onepen.js", ONEPEN_EXTENSION=its path.
'use strict';

if (process.env.ONEPEN_EXTENSION) {
  const { createRequire } = require('node:module');
  const program = createRequire(`${process.cwd()}/`);
  const Database = program('better-sqlite3');
  const db = new Database(':memory:');
  db.loadExtension(process.env.ONEPEN_EXTENSION);
  db.close();
}
