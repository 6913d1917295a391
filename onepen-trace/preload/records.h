/* The file of events: what the traced processes and the command share.
**
** The command creates the file with all of its room allocated and its header
** filled; every traced process maps it. `src/events.rs` and `src/record.rs` read it
** and repeat these numbers: where they differ, nothing is read that makes sense, and
** every test of the command fails.
**
** Crash safety: a slot is taken by one thread, changed by it alone until its
** state is DONE, and freed by the command alone. A killed thread leaves a
** record as it was then; the command frees it when its process has gone.
*/
#ifndef ONEPEN_RECORDS_H
#define ONEPEN_RECORDS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define MAGIC "onepen-trace/2"
#define HEADER_SIZE 4096
#define PROCESSES 2048
#define DATABASES 256
#define SLOTS 8192

enum { FREE, TAKEN, DONE };

struct header {
  char magic[16];
  _Atomic uint32_t claims;   /* slots asked for so far; slot = claims % SLOTS */
  _Atomic uint32_t dropped;  /* records for which there was no free slot */
  _Atomic uint32_t loaded;   /* programs that were started with the library */
  _Atomic uint32_t unnamed;  /* processes or databases beyond their tables */
};

enum { IS_TRACED = 1, IS_OUTSIDER = 2 };

struct process {
  _Atomic uint32_t state;    /* DONE: filled */
  uint32_t pid;
  uint32_t kind;
  uint32_t arguments_len;
  uint64_t since;            /* CLOCK_MONOTONIC, ns */
  _Atomic uint64_t calls;    /* calls for SQLite's locks */
  _Atomic uint64_t around;   /* refusals that SQLite goes around by itself */
  _Atomic uint64_t writes_since; /* it has a write lock; 0: it has none that was seen */
  _Atomic uint32_t writes_to;    /* of which database */
  uint32_t unused;
  char arguments[200];       /* the beginning of its command line, as /proc has it */
};

struct database {
  _Atomic uint32_t state;
  uint32_t len;
  char path[1016];
};

enum kind { WAITED = 1, HELD, TWO_LIBRARIES, DROPPED_LOCKS };
enum result { NOT_KNOWN, GOT, REFUSED };

/* The lock that was asked for. */
enum what {
  WRITER = 1, CHECKPOINTER, RECOVERY, READ, MARK, OPENING, /* of the -shm file */
  SHARED, RESERVED, PENDING, EXCLUSIVE                     /* of the database */
};

enum flags {
  BY_API = 1,          /* within a sqlite3_step that was seen */
  IN_PROCESS = 2,      /* another connection of the same process was in the way */
  INFERRED = 4,        /* from a sleep of SQLite's, not from a refusal */
  BESIDE_CHECKPOINT = 8, /* the holder has the checkpointer's lock as well */
  HAD_READ = 16,       /* this thread had a read lock before */
  TX_READ = 32,        /* after it, the connection was still in its read transaction */
  TX_WRITE = 64,       /* ... in a write transaction */
  TX_KNOWN = 128,      /* TX_READ and TX_WRITE are what SQLite said */
  OWN_RETRY = 256,     /* it was asked again, and not by SQLite's own timeout */
  HAS_LOG = 512,       /* a -wal file lies beside the database */
  SNAPSHOT = 1024,     /* SQLITE_BUSY_SNAPSHOT */
  HAS_TEXT = 2048,     /* `text` is the beginning of a statement */
  STACK_KNOWN = 4096,  /* it was seen whether ... */
  ONE_ACTIVATION = 8192 /* ... the call that took the read lock asks for this one */
};

#define NO_TIMEOUT_KNOWN (-2)
#define OWN_HANDLER (-1)
#define HOLDERS 4

struct record {
  _Atomic uint32_t state;
  uint32_t pid;
  uint32_t tid;
  uint32_t database;
  uint8_t kind, what, result, unused;
  uint32_t flags;
  uint64_t first;            /* CLOCK_MONOTONIC, ns: of the first refusal */
  uint64_t last;             /* of the last refusal, or when it was had */
  uint64_t slept;            /* of that, in SQLite's own sleep, ns */
  uint32_t refusals;
  int32_t timeout;           /* of the connection, ms */
  int32_t rc;                /* what sqlite3_step answered */
  uint32_t sleeps;
  struct { int32_t pid; uint32_t times; } holders[HOLDERS];
  uint32_t other_holders;    /* times it was somebody else */
  uint32_t own_tid;          /* the thread of this process that had the lock */
  uint64_t held_for;         /* how long who had the lock had had it, at the most, ns;
                             ** 0: not seen */
  char thread[16];
  char text[256];
};

_Static_assert(sizeof(struct process) == 256, "its size");
_Static_assert(sizeof(struct database) == 1024, "its size");
_Static_assert(sizeof(struct record) == 384, "its size");
_Static_assert(offsetof(struct record, first) == 24, "its form");
_Static_assert(offsetof(struct record, holders) == 64, "its form");
_Static_assert(offsetof(struct record, thread) == 112, "its form");
_Static_assert(ATOMIC_INT_LOCK_FREE == 2 && ATOMIC_LLONG_LOCK_FREE == 2, "no locks");

#define FILE_SIZE                                                              \
  (HEADER_SIZE + PROCESSES * sizeof(struct process) +                          \
   DATABASES * sizeof(struct database) + SLOTS * sizeof(struct record))

#endif
