/* What the rooms of the library know of each other.
**
**   libc.c    in place of fcntl, close and the sleeps
**   sqlite.c  in place of sqlite3_step and a few others, where SQLite is shared
**   waits.c   which refusals are one wait, and how it ended
**   files.c   which descriptor is which file of a database; who has its locks
**   map.c     the file of events
**
** Guarantees, of all: errno is as the real function left it; nothing is
** allocated; no lock is taken in the way of a lock call; a descriptor is never
** kept; what cannot be done is left out, and the program never hears of it.
*/
#ifndef ONEPEN_INSIDE_H
#define ONEPEN_INSIDE_H

#include <stdbool.h>
#include <sys/types.h>

#include "records.h"

#define PUBLIC __attribute__((visibility("default")))
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* map.c */
extern struct header *shared;              /* NULL: nobody listens */
uint64_t now(void);
uint32_t my_pid(void);
struct process *my_process(void);          /* NULL: its table is full */
struct process *process_of(int32_t pid);   /* NULL: not traced */
void writes(uint32_t database, uint64_t since);
uint32_t database_of(const char *path, size_t len);
bool has_log(uint32_t database);            /* a -wal file lies beside it */
struct record *claim(enum kind kind, uint32_t database);
void publish(struct record *record);

/* files.c */
enum { DATABASE = 1, SHARED_MEMORY };
struct file {
  _Atomic uint64_t device, inode;          /* inode 0: no file */
  uint32_t database;
  uint8_t kind;
  _Atomic uintptr_t library;               /* whose code locks it */
  _Atomic bool two;                        /* told of two */
  _Atomic uint32_t writer;                 /* the thread with the write lock */
  uint64_t writer_since;
  bool writer_upgraded;                    /* it had read before, by another statement */
  char writer_text[96];
};
struct file *file_of(int fd, off_t start, bool sure);
struct file *writer_of(uint32_t database); /* the file with the write lock, if any */
bool any_files(void);
struct file *file_of_library(uintptr_t library); /* NULL: it locks none */
void closing(int fd, void *caller);
void count_writer(int change);
uintptr_t library_of(void *code);          /* 0: not known */
void library_name(uintptr_t library, char *to, size_t len);
void forget_locks(void);                   /* in a forked child, which has none */

/* waits.c */
struct thread {
  uint32_t tid, generation;
  uintptr_t frame;                         /* of the call for a lock */
  bool inside;                             /* in here already */
  struct record *wait;                     /* open */
  struct file *wait_file;
  uint8_t wait_what;
  bool wait_is_upgrade;
  uint32_t wait_step;                      /* the step in which it began; 0: none */
  uint32_t sleeps;                         /* of SQLite, since the last refusal */
  struct file *around_file;                /* refused, and may be gone around */
  uint8_t around_what;
  uint64_t around_at;
  int32_t around_pid;
  struct file *last;
  void *whose_caller;                      /* who was looked at already */
  struct file *whose_file;
  struct file *reads[4];                   /* it has a read lock of these */
  uint32_t next_read;
  uint32_t steps_seen;                     /* of the timetable of SQLite's sleeps */
  void *step_caller;
  /* the call of SQLite that is running (sqlite.c) */
  uint32_t depth, step, steps;
  void *statement, *db;
  const char *sql;                         /* of a call that prepares */
  int sql_len;
  struct api *api;
  uint64_t step_slept;
  bool step_waited;
};
struct thread *self(void);                 /* NULL: nobody listens */
void locked(struct file *file, int type, off_t start, off_t len, int fd, bool refused);
void whose(struct file *file, void *caller);
void slept(uint64_t asked, uint64_t took, void *caller);
void end_wait(struct thread *thread, enum result result);
void note_text(struct record *record, const char *text);
extern _Atomic uint32_t generation;

/* sqlite.c */
const char *text_of(struct thread *thread); /* of the statement that runs */
int timeout_of(struct thread *thread);

#endif
