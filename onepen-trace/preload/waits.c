/* Which refusals are one wait, whom it was for, and how it ended.
**
** SQLite asks for a lock, is refused, gives back what it has, sleeps in its busy
** handler and asks again. So a wait is: refusals of one lock on one thread, with
** sleeps of SQLite between them, or all within one sqlite3_step where that can
** be seen. Anything else is another wait. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "inside.h"

/* Asked again after so long, it was waited for, by whatever means. */
#define OWN_WAIT 500000u
/* In bytes. Between the read lock and the write lock of a BEGIN IMMEDIATE the stack
** changes for 176 to 504 bytes above the call, of an upgrade for 1336 to 2312 (gcc,
** with and without optimization; better-sqlite3, rusqlite). */
#define ONE_CALL 800u
/* Between a refusal and the sleep that follows it, on a machine that is busy. */
#define SOON 20000000u
/* A write lock given back at once was of no use: the snapshot was too old. */
#define AT_ONCE 4000u
/* A write lock that was had for so long is told. */
#define LONG 10000000u

#define LOCK_OF_WRITER 120
#define LOCK_OF_CHECKPOINTER 121
#define FIRST_LOCK 0x40000000
#define ALL_SHARED 510

_Atomic uint32_t generation = 1;

struct thread *self(void) {
  static _Thread_local struct thread thread;
  if (!shared) return NULL;
  uint32_t is = atomic_load_explicit(&generation, memory_order_relaxed);
  if (UNLIKELY(thread.generation != is)) {
    bool inside = thread.inside;
    memset(&thread, 0, sizeof thread);
    thread.inside = inside;
    thread.generation = is;
    thread.tid = (uint32_t)syscall(SYS_gettid);
  }
  return &thread;
}

static enum what what_of(struct file *file, int type, off_t start, off_t len) {
  bool write = type == F_WRLCK;
  if (file->kind == SHARED_MEMORY) {
    off_t lock = start - LOCK_OF_WRITER;
    if (lock == 0) return WRITER;
    if (lock == 1) return len == 1 ? CHECKPOINTER : RECOVERY;
    if (lock == 2) return RECOVERY;
    if (lock == 8) return OPENING;
    return write ? MARK : READ;
  }
  off_t lock = start - FIRST_LOCK;
  if (!write) return SHARED;
  if (lock == 0) return len > 1 ? EXCLUSIVE : PENDING;
  return lock == 1 ? RESERVED : EXCLUSIVE;
}

/* Whether the call that now asks for the write lock is the one that took the read
** lock. In a BEGIN IMMEDIATE it is: SQLite takes both in one activation of
** sqlite3BtreeBeginTrans, so all frames above that are as they were, word for
** word. In an upgrade another statement runs. A copy of the stack tells. */
#define NEAR 512                /* so far above the call it always changes */
#define STACK 3072
struct stack {
  uintptr_t at;                 /* of the first word; 0: none */
  uintptr_t from, until;        /* known to be readable */
  uint8_t bytes[STACK - NEAR];
};
static _Thread_local struct stack stack;

static bool is_readable(uintptr_t from, uintptr_t until) {
  if (from >= stack.from && until <= stack.until) return true;
  char byte[2];
  struct iovec local[2] = {{byte, 1}, {byte + 1, 1}};
  struct iovec remote[2] = {{(void *)from, 1}, {(void *)(until - 1), 1}};
  if (syscall(SYS_process_vm_readv, getpid(), local, 2, remote, 2, 0) != 2) return false;
  stack.from = from & ~(uintptr_t)4095;
  stack.until = (until + 4095) & ~(uintptr_t)4095;
  return true;
}

/* Memory that the compiler knows nothing of. It is copied and compared whole, by the
** C library's fastest: every read lock pays for the copy. */
static const void *memory(uintptr_t at) {
  __asm__("" : "+r"(at) : : "memory");
  return (const void *)at;
}

static void keep_stack(uintptr_t at) {
  stack.at = 0;
  at = ((at + 7) & ~(uintptr_t)7) + NEAR;
  if (!is_readable(at, at + sizeof stack.bytes)) return;
  memcpy(stack.bytes, memory(at), sizeof stack.bytes);
  stack.at = at;
}

/* Whether all is as it was but for what is right above `at`. */
static bool is_one_call(uintptr_t at) {
  uintptr_t from = at + ONE_CALL > stack.at ? at + ONE_CALL : stack.at;
  uintptr_t until = stack.at + sizeof stack.bytes;
  return from >= until || !memcmp(memory(from), stack.bytes + (from - stack.at), until - from);
}

static bool has_read(struct thread *t, struct file *file) {
  for (int i = 0; i < 4; i++)
    if (t->reads[i] == file) return true;
  return false;
}

static void had_read(struct thread *t, struct file *file) {
  if (!has_read(t, file)) t->reads[t->next_read++ % 4] = file;
}

static void gave_read(struct thread *t, struct file *file) {
  for (int i = 0; i < 4; i++)
    if (t->reads[i] == file) t->reads[i] = NULL;
}

void note_text(struct record *record, const char *text) {
  if (!text) return;
  strncpy(record->text, text, sizeof record->text - 1); /* the last byte stays 0 */
  record->flags |= HAS_TEXT;
}

void end_wait(struct thread *t, enum result result) {
  struct record *wait = t->wait;
  t->wait = NULL;
  if (!wait) return;
  wait->result = (uint8_t)result;
  publish(wait);
}

static void add_holder(struct record *record, int32_t pid) {
  for (int i = 0; i < HOLDERS; i++) {
    if (record->holders[i].pid == pid || !record->holders[i].times) {
      record->holders[i].pid = pid;
      record->holders[i].times++;
      return;
    }
  }
  record->other_holders++;
}

/* Who has what was refused: 0 nobody any more, -1 an open file description. */
static int32_t holder_of(int fd, int type, off_t start, off_t len) {
  struct flock lock = {.l_type = (short)type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
  if (syscall(SYS_fcntl, fd, F_GETLK, &lock) || lock.l_type == F_UNLCK) return 0;
  return lock.l_pid;
}

/* Of an open wait: is the next attempt a part of it? */
static bool goes_on(struct thread *t, struct file *file, enum what what, uint64_t at) {
  struct record *wait = t->wait;
  if (!wait || t->wait_file->database != file->database) return false;
  bool in_process = wait->flags & INFERRED;
  if (t->wait_what != what && !(in_process && (what == WRITER || what == RESERVED))) return false;
  if (t->depth || t->wait_step) return t->depth && t->wait_step == t->step;
  if (t->sleeps) return true;
  /* Where SQLite slept before and did not now, it has given up. */
  if (t->wait_is_upgrade || wait->sleeps || at - wait->last < OWN_WAIT) return false;
  wait->flags |= OWN_RETRY;
  return true;
}

static struct record *begin_wait(struct thread *t, struct file *file, enum what what, uint64_t at) {
  end_wait(t, REFUSED);
  struct record *wait = claim(WAITED, file->database);
  if (!wait) return NULL;
  wait->what = (uint8_t)what;
  wait->first = wait->last = at;
  bool read = has_read(t, file);
  if (read) wait->flags |= HAD_READ;
  if (t->depth) {
    wait->flags |= BY_API;
    wait->timeout = timeout_of(t);
    note_text(wait, text_of(t));
  }
  if (file->kind == DATABASE && has_log(file->database)) wait->flags |= HAS_LOG;
  t->wait = wait;
  t->wait_file = file;
  t->wait_what = (uint8_t)what;
  t->wait_is_upgrade = read && stack.at && !is_one_call(t->frame);
  if (read && stack.at) wait->flags |= STACK_KNOWN | (t->wait_is_upgrade ? 0 : ONE_ACTIVATION);
  t->wait_step = t->depth ? t->step : 0;
  t->step_waited = true;
  t->sleeps = 0;
  return wait;
}

static void held_since(struct record *wait, uint64_t since, uint64_t at) {
  if (since && at > since && at - since > wait->held_for) wait->held_for = at - since;
}

/* The connection of this process that has the write lock. */
static void add_own(struct record *wait, struct file *writer, uint64_t at) {
  if (!writer || !writer->writer) return;
  wait->own_tid = writer->writer;
  held_since(wait, writer->writer_since, at);
}

static void refused_now(struct thread *t, struct file *file, int type, off_t start, off_t len,
                        int fd) {
  enum what what = what_of(file, type, start, len);
  uint64_t at = now();
  int32_t pid = holder_of(fd, type, start, len);
  const char *text = what == CHECKPOINTER ? text_of(t) : NULL;
  /* Who finds the shared memory empty asks for the write lock, to fill it, and when
  ** that is refused, whether somebody is at that: two refusals of one attempt. */
  bool same = t->wait && t->wait_file->database == file->database;
  if (same && what == RECOVERY && type == F_RDLCK &&
      (t->wait_what == WRITER || t->wait_what == RECOVERY)) {
    t->wait_what = t->wait->what = RECOVERY;
    t->wait->last = at;
    return;
  }
  if (same && what == WRITER && t->wait_what == RECOVERY) what = RECOVERY;
  /* SQLite takes another mark, leaves the checkpoint to who is at it, or closes
  ** without being the last. These are waits only when it sleeps. */
  bool closes = (what == EXCLUSIVE || what == PENDING) && !t->depth && has_log(file->database);
  if (what == MARK || what == READ || closes ||
      (what == CHECKPOINTER && !(text && strcasestr(text, "checkpoint")))) {
    struct process *me = my_process();
    if (me) atomic_fetch_add_explicit(&me->around, 1, memory_order_relaxed);
    t->around_file = file;
    t->around_what = (uint8_t)what;
    t->around_at = at;
    t->around_pid = pid;
    if (!goes_on(t, file, what, at)) return;
  }
  struct record *wait = goes_on(t, file, what, at) ? t->wait : begin_wait(t, file, what, at);
  if (!wait) return;
  if (t->wait_what != what) {
    t->wait_file = file;
    t->wait_what = (uint8_t)what;
    wait->what = (uint8_t)what;
  }
  wait->refusals++;
  wait->last = at;
  t->sleeps = 0;
  struct process *holder = process_of(pid);
  if (holder && holder->writes_to == file->database) held_since(wait, holder->writes_since, at);
  add_holder(wait, pid);
  if (what == WRITER && pid && holder_of(fd, F_WRLCK, LOCK_OF_CHECKPOINTER, 1) == pid)
    wait->flags |= BESIDE_CHECKPOINT;
  wait->last = now(); /* what follows is SQLite's time, not ours */
}

static void got_now(struct thread *t, struct file *file, int type, off_t start, off_t len) {
  enum what what = what_of(file, type, start, len);
  /* Most locks are had at once, and are not timed. */
  uint64_t at = t->wait || type == F_WRLCK ? now() : 0;
  if (t->wait && t->wait_what == RECOVERY && t->wait_file->database == file->database) {
    /* Somebody else has filled it, or this one does now. */
    if ((what == READ && type == F_RDLCK) || what == WRITER) {
      t->wait->last = at;
      end_wait(t, GOT);
    }
  } else if (t->wait && goes_on(t, file, what, at)) {
    /* The pending byte is only the door to the shared ones. */
    if (what != SHARED || len == ALL_SHARED) {
      t->wait->last = at;
      end_wait(t, GOT);
    }
  } else if (t->wait && t->wait_file->database == file->database && type == F_WRLCK && what != MARK) {
    end_wait(t, t->wait->flags & INFERRED ? GOT : REFUSED);
  }
  if ((what == READ && type == F_RDLCK) || (what == SHARED && len == ALL_SHARED)) {
    had_read(t, file);
    if (!t->depth) keep_stack(t->frame);
  }
  if (type == F_WRLCK) {
    if ((what == WRITER || what == RESERVED) && !file->writer) {
      file->writer_upgraded = !t->depth && has_read(t, file) && stack.at && !is_one_call(t->frame);
      const char *text = text_of(t);
      file->writer_text[0] = 0;
      if (text) strncpy(file->writer_text, text, sizeof file->writer_text - 1);
      file->writer_since = at;
      atomic_store(&file->writer, t->tid);
      count_writer(1);
      writes(file->database, at);
    }
  }
}

static void released(struct thread *t, struct file *file, off_t start, off_t len) {
  bool all = len == 0 && start == 0;
  if (all || start > LOCK_OF_CHECKPOINTER + 1) {
    /* A read mark; of the database, any unlocking but that of the pending byte. */
    if (file->kind == SHARED_MEMORY ? start < LOCK_OF_WRITER + 8 : all || len >= ALL_SHARED)
      gave_read(t, file);
  }
  bool had_writer = file->kind == SHARED_MEMORY ? all || start == LOCK_OF_WRITER
                                                : all || start <= FIRST_LOCK + 1;
  /* PENDING is given back alone on the way to a shared lock. */
  if (file->kind == DATABASE && !all && len == 1) had_writer = false;
  if (!had_writer || !file->writer) return;
  uint64_t at = now(), held = at - file->writer_since;
  struct record *record = NULL;
  if (held >= LONG) {
    record = claim(HELD, file->database);
  } else if (file->kind == SHARED_MEMORY && held < AT_ONCE && !t->depth && file->writer == t->tid &&
             file->writer_upgraded) {
    end_wait(t, REFUSED);
    record = claim(WAITED, file->database);
    if (record) {
      record->flags |= SNAPSHOT | INFERRED | HAD_READ;
      record->result = REFUSED;
    }
  }
  if (record) {
    record->what = file->kind == SHARED_MEMORY ? WRITER : RESERVED;
    record->first = record->kind == HELD ? file->writer_since : at;
    record->last = at;
    record->own_tid = file->writer;
    if (file->writer_text[0]) note_text(record, file->writer_text);
    publish(record);
  }
  atomic_store(&file->writer, 0);
  count_writer(-1);
  writes(file->database, 0);
}

static void two_libraries(struct file *file, uintptr_t one, uintptr_t other) {
  if (atomic_exchange(&file->two, true)) return;
  struct record *record = claim(TWO_LIBRARIES, file->database);
  if (!record) return;
  record->first = record->last = now();
  size_t half = sizeof record->text / 2;
  library_name(one, record->text, half);
  size_t len = strlen(record->text);
  record->text[len++] = '\n';
  library_name(other, record->text + len, sizeof record->text - len);
  publish(record);
}

void whose(struct file *file, void *caller) {
  struct thread *t = self();
  if (caller == t->whose_caller && file == t->whose_file) return;
  uintptr_t library = library_of(caller), none = 0;
  if (!library) return;
  if (!atomic_compare_exchange_strong(&file->library, &none, library) && none != library)
    two_libraries(file, none, library);
  t->whose_caller = caller;
  t->whose_file = file;
}

/* After a call for a lock. */
void locked(struct file *file, int type, off_t start, off_t len, int fd, bool refused) {
  struct thread *t = self();
  struct process *me = my_process();
  if (me) atomic_fetch_add_explicit(&me->calls, 1, memory_order_relaxed);
  if (refused) {
    struct file *sure = file_of(fd, start, true);
    if (!sure) return;
    refused_now(t, sure, type, start, len, fd);
  } else if (type == F_UNLCK) {
    released(t, file, start, len);
  } else {
    got_now(t, file, type, start, len);
  }
  t->last = file;
}

/* What SQLite's busy timeout sleeps, one after the other, in milliseconds. */
static const uint8_t timetable[] = {1, 2, 5, 10, 15, 20, 25, 25, 25, 50, 50, 100};

static bool is_step(uint64_t asked, uint32_t step) {
  uint32_t last = sizeof timetable - 1;
  return asked == timetable[step < last ? step : last] * 1000000u;
}

/* The return address of SQLite's sleep in a copy that hides its functions:
** learned from the first three steps of its timetable on one thread. */
static _Atomic uintptr_t sleeper[4];
#define STEPS 3

static bool is_sleeper(void *caller) {
  for (int i = 0; i < 4; i++)
    if (atomic_load_explicit(&sleeper[i], memory_order_relaxed) == (uintptr_t)caller) return true;
  return false;
}

enum known { UNKNOWN, KNOWN, NOW_KNOWN };
static enum known learn(struct thread *t, uint64_t asked, void *caller) {
  if (is_sleeper(caller)) return KNOWN;
  if (!file_of_library(library_of(caller))) return UNKNOWN;
  bool next = t->steps_seen && t->step_caller == caller && is_step(asked, t->steps_seen);
  t->steps_seen = next ? t->steps_seen + 1 : is_step(asked, 0);
  t->step_caller = caller;
  if (t->steps_seen < STEPS) return UNKNOWN;
  t->steps_seen = 0;
  for (int i = 0; i < 4; i++) {
    uintptr_t none = 0;
    if (atomic_compare_exchange_strong(&sleeper[i], &none, (uintptr_t)caller)) break;
  }
  return NOW_KNOWN;
}

/* A thread has slept in a program that asks for SQLite's locks. */
void slept(uint64_t asked, uint64_t took, void *caller) {
  struct thread *t = self();
  if (!t) return;
  uint64_t at = now();
  enum known known = learn(t, asked, caller);
  if (t->depth) t->step_slept += took;
  if (t->around_file && !t->wait && at - took - t->around_at < SOON && (t->depth || known)) {
    /* What SQLite could have gone around it waits for: a checkpoint that was
    ** asked for, behind readers. */
    struct record *wait = begin_wait(t, t->around_file, t->around_what, t->around_at);
    if (wait) {
      wait->refusals = 1;
      process_of(t->around_pid);
      add_holder(wait, t->around_pid);
    }
  }
  t->around_file = NULL;
  struct record *wait = t->wait;
  if (t->depth) {
    if (!wait) return; /* told at the end of the step */
  } else if (wait && t->wait_step == 0 && !t->wait_is_upgrade && at - took - wait->last < SOON) {
    /* Of this wait, if it is the sleep of SQLite's that comes now. */
    bool is_next = t->wait_file->library == library_of(caller) && is_step(asked, wait->sleeps);
    if (!known && !is_next) return; /* the program's own; see goes_on */
  } else {
    /* Nothing was refused and SQLite sleeps: another connection of this process
    ** has the lock. */
    if (!known) return;
    uint64_t before = known == NOW_KNOWN ? 3000000 : 0; /* the steps until then */
    struct file *file = t->last;
    if (!file || !writer_of(file->database)) file = file_of_library(library_of(caller));
    if (!file) return;
    wait = begin_wait(t, file, file->kind == SHARED_MEMORY ? WRITER : RESERVED, at - took - before);
    if (!wait) return;
    wait->flags &= ~(uint32_t)(STACK_KNOWN | ONE_ACTIVATION);
    wait->flags |= INFERRED | IN_PROCESS;
    wait->slept = before;
    t->wait_is_upgrade = false;
  }
  if (wait->flags & INFERRED) add_own(wait, writer_of(t->wait_file->database), at);
  t->sleeps++;
  wait->sleeps++;
  wait->slept += took;
  wait->last = at;
}
