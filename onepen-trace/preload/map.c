/* The file of events: found beside this library, mapped once, no descriptor kept
** (programs close what they do not know). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "inside.h"

struct header *shared;
static struct process *processes;
static struct database *databases;
static struct record *slots;

static _Atomic uint32_t pid;
static struct process *_Atomic process;
static struct process nobody;              /* when the table is full */

uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint32_t my_pid(void) { return atomic_load_explicit(&pid, memory_order_relaxed); }

static void in_child(void) {
  atomic_store(&pid, (uint32_t)getpid());
  atomic_store(&process, NULL);
  atomic_fetch_add(&generation, 1);
  forget_locks();
}

__attribute__((constructor)) static void start(void) {
  int saved = errno;
  Dl_info info;
  char path[4096];
  int fd = -1;
  if (!dladdr((void *)start, &info) || !info.dli_fname) goto done;
  const char *slash = strrchr(info.dli_fname, '/');
  size_t len = slash ? (size_t)(slash - info.dli_fname) : 0;
  if (!slash || len + sizeof "/events" > sizeof path) goto done;
  memcpy(path, info.dli_fname, len);
  memcpy(path + len, "/events", sizeof "/events");
  fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  struct stat is;
  if (fd < 0 || fstat(fd, &is) || is.st_size != (off_t)FILE_SIZE) goto done;
  char *all = mmap(NULL, FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (all == MAP_FAILED) goto done;
  if (memcmp(all, MAGIC, sizeof MAGIC)) {
    munmap(all, FILE_SIZE);
    goto done;
  }
  processes = (struct process *)(all + HEADER_SIZE);
  databases = (struct database *)(processes + PROCESSES);
  slots = (struct record *)(databases + DATABASES);
  atomic_store(&pid, (uint32_t)getpid());
  pthread_atfork(NULL, NULL, in_child);
  atomic_fetch_add(&((struct header *)all)->loaded, 1);
  shared = (struct header *)all;
done:
  if (fd >= 0) syscall(SYS_close, fd);
  errno = saved;
}

/* Fills an entry of the table: its command line is what /proc says now. */
static struct process *enter(uint32_t who, uint32_t kind) {
  char path[64] = "/proc/";
  size_t at = 6, digits = 0;
  char number[12];
  for (uint32_t rest = who; rest || !digits; rest /= 10) number[digits++] = (char)('0' + rest % 10);
  while (digits) path[at++] = number[--digits];
  memcpy(path + at, "/cmdline", sizeof "/cmdline");
  for (uint32_t i = 0; i < PROCESSES; i++) {
    uint32_t free = FREE;
    struct process *it = &processes[i];
    if (!atomic_compare_exchange_strong(&it->state, &free, TAKEN)) continue;
    it->pid = who;
    it->kind = kind;
    it->since = now();
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
      ssize_t got = syscall(SYS_read, fd, it->arguments, sizeof it->arguments);
      it->arguments_len = got > 0 ? (uint32_t)got : 0;
      syscall(SYS_close, fd);
    }
    atomic_store_explicit(&it->state, DONE, memory_order_release);
    return it;
  }
  atomic_fetch_add(&shared->unnamed, 1);
  return NULL;
}

struct process *my_process(void) {
  struct process *it = atomic_load_explicit(&process, memory_order_acquire);
  if (UNLIKELY(!it)) {
    /* Two threads may both enter it: both entries say the same, and one counts. */
    struct process *none = NULL, *new = enter(my_pid(), IS_TRACED);
    it = new ? new : &nobody;
    if (!atomic_compare_exchange_strong(&process, &none, it)) it = none;
  }
  return it == &nobody ? NULL : it;
}

/* Of a process that is not traced the name is noted, and nothing else known. */
struct process *process_of(int32_t who) {
  static _Thread_local struct { int32_t pid; struct process *process; } last;
  if (who <= 0 || (uint32_t)who == my_pid()) return NULL;
  if (who == last.pid && last.process && last.process->kind == IS_TRACED) return last.process;
  struct process *found = NULL;
  for (uint32_t i = 0; i < PROCESSES; i++) {
    uint32_t state = atomic_load_explicit(&processes[i].state, memory_order_acquire);
    if (state == FREE) break;
    /* The last of them: its number may have been another's. */
    if (state == DONE && processes[i].pid == (uint32_t)who) found = &processes[i];
  }
  if (!found && who != last.pid) found = enter((uint32_t)who, IS_OUTSIDER);
  last.pid = who;
  last.process = found;
  return found && found->kind == IS_TRACED ? found : NULL;
}

void writes(uint32_t database, uint64_t since) {
  struct process *me = my_process();
  if (!me) return;
  atomic_store_explicit(&me->writes_to, database, memory_order_relaxed);
  atomic_store_explicit(&me->writes_since, since, memory_order_release);
}

uint32_t database_of(const char *path, size_t len) {
  if (len > sizeof databases->path) len = sizeof databases->path;
  for (uint32_t i = 0; i < DATABASES; i++) {
    struct database *it = &databases[i];
    uint32_t state = FREE;
    if (atomic_compare_exchange_strong(&it->state, &state, TAKEN)) {
      memcpy(it->path, path, len);
      it->len = (uint32_t)len;
      atomic_store_explicit(&it->state, DONE, memory_order_release);
      return i;
    }
    /* One that is just being filled may be the same; then there are two of one
    ** name, which are put together when they are read. */
    if (state == DONE && it->len == len && !memcmp(it->path, path, len)) return i;
  }
  atomic_fetch_add(&shared->unnamed, 1);
  return UINT32_MAX;
}

struct record *claim(enum kind kind, uint32_t database) {
  for (int tries = 0; tries < 64; tries++) {
    uint32_t n = atomic_fetch_add(&shared->claims, 1);
    struct record *it = &slots[n % SLOTS];
    uint32_t free = FREE;
    if (!atomic_compare_exchange_strong(&it->state, &free, TAKEN)) continue;
    memset((char *)it + sizeof it->state, 0, sizeof *it - sizeof it->state);
    it->pid = my_pid();
    it->tid = self()->tid;
    it->database = database;
    it->kind = (uint8_t)kind;
    it->timeout = NO_TIMEOUT_KNOWN;
    prctl(PR_GET_NAME, it->thread);
    return it;
  }
  atomic_fetch_add(&shared->dropped, 1);
  return NULL;
}

void publish(struct record *record) {
  atomic_store_explicit(&record->state, DONE, memory_order_release);
}

bool has_log(uint32_t database) {
  char path[sizeof databases->path + sizeof "-wal"];
  if (database >= DATABASES) return false;
  memcpy(path, databases[database].path, databases[database].len);
  memcpy(path + databases[database].len, "-wal", sizeof "-wal");
  return syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
}
