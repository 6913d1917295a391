/* In place of the functions of SQLite that wait for locks, and of those that say
** how long, where a program shares a SQLite library: then it is known which
** statement waits, in which state of its transaction, and with which timeout.
**
** The real functions are found as the loader would have found them without this
** library: after it among the program's own libraries, else among those of the
** object that calls (`dlopen` keeps what a Python module needs to that module).
** They are pinned, so what was found stays true. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>

#include "inside.h"

#define MISUSE 21
#define BUSY 5
#define LOCKED 6
#define BUSY_SNAPSHOT 517

struct api {
  int (*step)(void *);
  int (*prepare_v2)(void *, const char *, int, void **, const char **);
  int (*prepare_v3)(void *, const char *, int, unsigned, void **, const char **);
  int (*busy_timeout)(void *, int);
  int (*busy_handler)(void *, int (*)(void *, int), void *);
  const char *(*sql)(void *);
  void *(*db_handle)(void *);
  int (*extended_errcode)(void *);
  int (*txn_state)(void *, const char *);
  int (*get_autocommit)(void *);
  const char *(*db_filename)(void *, const char *);
};

static bool fill(struct api *api, void *handle) {
  api->step = (int (*)(void *))dlsym(handle, "sqlite3_step");
  api->prepare_v2 = (int (*)(void *, const char *, int, void **, const char **))dlsym(
      handle, "sqlite3_prepare_v2");
  api->prepare_v3 = (int (*)(void *, const char *, int, unsigned, void **, const char **))dlsym(
      handle, "sqlite3_prepare_v3");
  api->busy_timeout = (int (*)(void *, int))dlsym(handle, "sqlite3_busy_timeout");
  api->busy_handler =
      (int (*)(void *, int (*)(void *, int), void *))dlsym(handle, "sqlite3_busy_handler");
  api->sql = (const char *(*)(void *))dlsym(handle, "sqlite3_sql");
  api->db_handle = (void *(*)(void *))dlsym(handle, "sqlite3_db_handle");
  api->extended_errcode = (int (*)(void *))dlsym(handle, "sqlite3_extended_errcode");
  api->txn_state = (int (*)(void *, const char *))dlsym(handle, "sqlite3_txn_state");
  api->get_autocommit = (int (*)(void *))dlsym(handle, "sqlite3_get_autocommit");
  api->db_filename = (const char *(*)(void *, const char *))dlsym(handle, "sqlite3_db_filename");
  return api->step && api->busy_timeout && api->busy_handler;
}

/* The last resort: whoever looks a function up by name in everything. */
static int by_name(struct dl_phdr_info *info, size_t size, void *into) {
  (void)size;
  if (!info->dlpi_name || !strstr(info->dlpi_name, "sqlite3")) return 0;
  void *handle = dlopen(info->dlpi_name, RTLD_LAZY | RTLD_NOLOAD);
  return handle && fill(into, handle);
}

static struct api *find(void *caller) {
  static struct api apis[64];
  static _Atomic uint32_t count;
  struct api api;
  memset(&api, 0, sizeof api);
  Dl_info info;
  bool found = fill(&api, RTLD_NEXT);
  if (!found && dladdr(caller, &info) && info.dli_fname) {
    void *handle = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    found = handle && fill(&api, handle);
  }
  if (!found && !dl_iterate_phdr(by_name, &api)) return NULL;
  for (uint32_t i = 0; i < 64 && i < atomic_load(&count); i++)
    if (!memcmp(&apis[i], &api, sizeof api)) return &apis[i];
  uint32_t at = atomic_fetch_add(&count, 1);
  if (at >= 64) return NULL;
  apis[at] = api;
  return &apis[at];
}

/* By return address: there are few places from which SQLite is called. */
static struct api *api_of(void *caller) {
  static struct { _Atomic uintptr_t caller; struct api *_Atomic api; } known[1024];
  size_t at = ((uintptr_t)caller >> 2) % 1024;
  for (int i = 0; i < 16; i++, at = (at + 1) % 1024) {
    uintptr_t is = atomic_load_explicit(&known[at].caller, memory_order_acquire);
    if (is == (uintptr_t)caller) {
      struct api *api = atomic_load_explicit(&known[at].api, memory_order_acquire);
      if (api) return api;
    } else if (is) {
      continue;
    }
    struct api *api = find(caller);
    uintptr_t free = 0;
    if (api && (atomic_compare_exchange_strong(&known[at].caller, &free, (uintptr_t)caller) ||
                free == (uintptr_t)caller))
      atomic_store_explicit(&known[at].api, api, memory_order_release);
    return api;
  }
  return find(caller);
}

/* The timeouts of connections, by their address; a newer one takes the place. */
static struct { _Atomic uintptr_t db; _Atomic int32_t ms; } timeouts[4096];

/* Its place, or with `free` one that it may have. */
static int place_of(void *db, bool free) {
  uintptr_t key = (uintptr_t)db;
  size_t start = (key >> 4) * 0x9e3779b97f4a7c15u >> 52;
  for (size_t i = 0; i < 8; i++) {
    size_t at = (start + i) % 4096;
    uintptr_t is = atomic_load(&timeouts[at].db);
    if (is == key || (free && !is)) return (int)at;
  }
  return free ? (int)start : -1;
}

static void note_timeout(void *db, int32_t ms) {
  int at = place_of(db, true);
  atomic_store(&timeouts[at].ms, ms);
  atomic_store(&timeouts[at].db, (uintptr_t)db);
}

static void *db_of(struct thread *t) {
  if (!t->db && t->statement && t->api->db_handle) t->db = t->api->db_handle(t->statement);
  return t->db;
}

const char *text_of(struct thread *t) {
  static _Thread_local char text[sizeof((struct record *)0)->text];
  if (!t->depth) return NULL;
  if (!t->sql) return t->statement && t->api->sql ? t->api->sql(t->statement) : NULL;
  size_t len = strnlen(t->sql, t->sql_len < 0 || (size_t)t->sql_len >= sizeof text
                                   ? sizeof text - 1
                                   : (size_t)t->sql_len);
  memcpy(text, t->sql, len);
  text[len] = 0;
  return text;
}

int timeout_of(struct thread *t) {
  void *db = db_of(t);
  int at = db ? place_of(db, false) : -1;
  return at < 0 ? NO_TIMEOUT_KNOWN : atomic_load(&timeouts[at].ms);
}

static void note_transaction(struct record *record, struct api *api, void *db, int rc) {
  record->rc = rc;
  if (api->extended_errcode && ((rc & 0xff) == BUSY || (rc & 0xff) == LOCKED)) {
    int more = api->extended_errcode(db);
    if ((more & 0xff) == (rc & 0xff)) record->rc = more;
  }
  if (record->rc == BUSY_SNAPSHOT) record->flags |= SNAPSHOT;
  if (api->txn_state) {
    int state = api->txn_state(db, NULL);
    record->flags |= TX_KNOWN | (state == 1 ? TX_READ : 0) | (state == 2 ? TX_WRITE : 0);
  }
}

/* SQLite answered BUSY or LOCKED, or slept, and no lock was refused by the
** system: another connection of this process was in the way. */
static void note_in_process(struct thread *t, int rc) {
  struct api *api = t->api;
  void *db = db_of(t);
  const char *path = db && api->db_filename ? api->db_filename(db, "main") : NULL;
  uint32_t database = path && *path ? database_of(path, strlen(path))
                      : t->last     ? t->last->database
                                    : UINT32_MAX;
  struct record *record = claim(WAITED, database);
  if (!record) return;
  bool refused = (rc & 0xff) == BUSY || (rc & 0xff) == LOCKED;
  struct file *writer = writer_of(database);
  record->what = writer && writer->kind == DATABASE ? RESERVED : WRITER;
  record->flags = BY_API | IN_PROCESS;
  record->last = now();
  record->first = record->last - t->step_slept;
  record->slept = t->step_slept;
  record->sleeps = t->step_slept > 0;
  record->refusals = 1;
  record->result = refused ? REFUSED : GOT;
  record->timeout = timeout_of(t);
  note_text(record, text_of(t));
  /* After a refusal it may be another connection of this very thread. */
  if (writer && (refused || writer->writer != t->tid)) {
    record->own_tid = writer->writer;
    if (record->last > writer->writer_since) record->held_for = record->last - writer->writer_since;
  }
  if (db) note_transaction(record, api, db, rc);
  publish(record);
}

/* The outermost call of SQLite on this thread begins; false: it is not looked at. */
static bool enter(struct thread *t, struct api *api) {
  if (!t || t->depth || t->inside) return false;
  t->depth = 1;
  if (!++t->steps) t->steps = 1;
  t->step = t->steps;
  t->statement = t->db = NULL;
  t->sql = NULL;
  t->api = api;
  t->step_slept = 0;
  t->step_waited = false;
  return true;
}

/* It has ended. Between the two, lock calls and sleeps were noted as its. */
static int leave(struct thread *t, int rc) {
  bool refused = (rc & 0xff) == BUSY || (rc & 0xff) == LOCKED;
  if (UNLIKELY(refused || t->step_waited || t->step_slept)) {
    int saved = errno;
    t->inside = true;
    if (t->wait && t->wait_step == t->step) {
      void *db = db_of(t);
      if (db) note_transaction(t->wait, t->api, db, rc);
      end_wait(t, REFUSED);
    } else if (!t->step_waited) {
      note_in_process(t, rc);
    }
    t->inside = false;
    errno = saved;
  }
  t->depth = 0;
  return rc;
}

static struct thread *listener(void) { return shared ? self() : NULL; }

PUBLIC int sqlite3_step(void *statement) {
  struct api *api = api_of(__builtin_return_address(0));
  if (!api) return MISUSE;
  struct thread *t = listener();
  if (!statement || !enter(t, api)) return api->step(statement);
  t->statement = statement;
  return leave(t, api->step(statement));
}

PUBLIC int sqlite3_prepare_v2(void *db, const char *sql, int len, void **to, const char **rest) {
  struct api *api = api_of(__builtin_return_address(0));
  if (!api || !api->prepare_v2) return MISUSE;
  struct thread *t = listener();
  if (!db || !sql || !enter(t, api)) return api->prepare_v2(db, sql, len, to, rest);
  t->db = db;
  t->sql = sql;
  t->sql_len = len;
  return leave(t, api->prepare_v2(db, sql, len, to, rest));
}

PUBLIC int sqlite3_prepare_v3(void *db, const char *sql, int len, unsigned flags, void **to,
                              const char **rest) {
  struct api *api = api_of(__builtin_return_address(0));
  if (!api || !api->prepare_v3) return MISUSE;
  struct thread *t = listener();
  if (!db || !sql || !enter(t, api)) return api->prepare_v3(db, sql, len, flags, to, rest);
  t->db = db;
  t->sql = sql;
  t->sql_len = len;
  return leave(t, api->prepare_v3(db, sql, len, flags, to, rest));
}

PUBLIC int sqlite3_busy_timeout(void *db, int ms) {
  struct api *api = api_of(__builtin_return_address(0));
  if (!api) return MISUSE;
  int rc = api->busy_timeout(db, ms);
  if (shared && db && rc == 0) note_timeout(db, ms > 0 ? ms : 0);
  return rc;
}

PUBLIC int sqlite3_busy_handler(void *db, int (*handler)(void *, int), void *context) {
  struct api *api = api_of(__builtin_return_address(0));
  if (!api) return MISUSE;
  int rc = api->busy_handler(db, handler, context);
  if (shared && db && rc == 0) note_timeout(db, handler ? OWN_HANDLER : 0);
  return rc;
}
