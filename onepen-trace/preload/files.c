/* Which descriptor is which file of a database, whose code locks it, and which
** locks this process has on it.
**
** A descriptor is known from its first lock to its close. One that was closed
** where it could not be seen (inside the C library) is noticed at the next
** refusal, when it is looked at again. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "inside.h"

#define FILES 512
#define DESCRIPTORS 65536
#define FIRST_LOCK 0x40000000 /* SQLite's PENDING_BYTE */

static struct file files[FILES];
/* 0: not known, 1: not of a database, n + 2: files[n] */
static _Atomic uint16_t descriptors[DESCRIPTORS];
/* So that close() need not look when there is nothing to lose. */
static _Atomic uint32_t writing;

static struct file *find(const struct stat *is) {
  for (int i = 0; i < FILES; i++) {
    uint64_t inode = atomic_load_explicit(&files[i].inode, memory_order_acquire);
    if (!inode) return NULL;
    if (inode == is->st_ino && files[i].device == is->st_dev) return &files[i];
  }
  return NULL;
}

static bool ends_with(const char *text, size_t len, const char *end) {
  size_t n = strlen(end);
  return len >= n && !memcmp(text + len - n, end, n);
}

static struct file *enter(int fd, const struct stat *is, off_t start) {
  char link[32], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t got = readlink(link, path, sizeof path - 1);
  if (got <= 0 || path[0] != '/') return NULL;
  size_t len = (size_t)got;
  if (ends_with(path, len, " (deleted)")) len -= strlen(" (deleted)");
  uint8_t kind = start >= FIRST_LOCK ? DATABASE : SHARED_MEMORY;
  if (kind == SHARED_MEMORY) {
    if (!ends_with(path, len, "-shm")) return NULL;
    len -= strlen("-shm");
  }
  for (int i = 0; i < FILES; i++) {
    uint64_t none = 0;
    /* The device is compared only where the inode fits, and is set at once. */
    if (!atomic_compare_exchange_strong(&files[i].inode, &none, is->st_ino)) {
      if (none == is->st_ino && files[i].device == is->st_dev) return &files[i];
      continue;
    }
    files[i].device = is->st_dev;
    files[i].kind = kind;
    files[i].database = database_of(path, len);
    return &files[i];
  }
  return NULL;
}

/* The file behind a descriptor on which a lock of SQLite's form is asked for.
** `sure`: look at it again. */
struct file *file_of(int fd, off_t start, bool sure) {
  if (fd < 0 || fd >= DESCRIPTORS) return NULL;
  uint16_t known = atomic_load_explicit(&descriptors[fd], memory_order_relaxed);
  if (known == 1) return NULL;
  if (known && !sure) return &files[known - 2];
  if (!known && start < 0) return NULL;
  struct stat is;
  if (fstat(fd, &is) || !S_ISREG(is.st_mode)) return NULL;
  if (known) {
    struct file *it = &files[known - 2];
    if (it->inode == is.st_ino && it->device == is.st_dev) return it;
  }
  struct file *it = find(&is);
  if (!it) it = enter(fd, &is, start);
  atomic_store(&descriptors[fd], (uint16_t)(it ? it - files + 2 : 1));
  return it;
}

struct file *writer_of(uint32_t database) {
  for (int i = 0; i < FILES && files[i].inode; i++)
    if (files[i].database == database && files[i].writer) return &files[i];
  return NULL;
}

bool any_files(void) { return atomic_load_explicit(&files[0].inode, memory_order_relaxed) != 0; }

/* A file that this library locks: one with a writer, if there is any. */
struct file *file_of_library(uintptr_t library) {
  struct file *found = NULL;
  for (int i = 0; library && i < FILES && files[i].inode; i++) {
    if (files[i].library != library) continue;
    if (files[i].writer) return &files[i];
    if (!found) found = &files[i];
  }
  return found;
}

/* Nor whose code they were of: with a copy of its own a child may use what its
** parent used with another. */
void forget_locks(void) {
  for (int i = 0; i < FILES && files[i].inode; i++) {
    files[i].writer = 0;
    files[i].library = 0;
    files[i].two = false;
  }
  writing = 0;
}

/* A descriptor is about to be closed. SQLite never closes one while it has
** locks of the file (`setPendingFd`); anybody else drops them. */
void closing(int fd, void *caller) {
  if (fd < 0 || fd >= DESCRIPTORS) return;
  uint16_t known = atomic_load_explicit(&descriptors[fd], memory_order_relaxed);
  if (!known && !atomic_load_explicit(&writing, memory_order_relaxed)) return;
  /* A child of vfork shares this memory and not the descriptors. */
  if ((uint32_t)getpid() != my_pid()) return;
  struct file *it = known > 1 ? &files[known - 2] : NULL;
  if (known) atomic_store(&descriptors[fd], 0);
  if (!it && atomic_load_explicit(&writing, memory_order_relaxed)) {
    struct stat is;
    if (fstat(fd, &is)) return;
    it = find(&is);
  }
  if (!it || !it->writer) return;
  struct record *record = claim(DROPPED_LOCKS, it->database);
  if (record) {
    record->what = it->kind == SHARED_MEMORY ? WRITER : RESERVED;
    record->first = it->writer_since;
    record->last = now();
    record->own_tid = it->writer;
    library_name(library_of(caller), record->text, sizeof record->text);
    publish(record);
  }
}

void count_writer(int change) { atomic_fetch_add(&writing, (uint32_t)change); }

/* Which object code is in: by its return address, asked of the loader once. */
uintptr_t library_of(void *code) {
  static struct { _Atomic uintptr_t code, library; } known[1024];
  size_t at = ((uintptr_t)code >> 2) % 1024;
  for (int i = 0; i < 16; i++, at = (at + 1) % 1024) {
    uintptr_t is = atomic_load_explicit(&known[at].code, memory_order_acquire);
    if (is == (uintptr_t)code) {
      uintptr_t library = atomic_load_explicit(&known[at].library, memory_order_acquire);
      if (library) return library;
      break;
    }
    if (is) continue;
    Dl_info info;
    if (!dladdr(code, &info)) return 0;
    uintptr_t free = 0;
    if (atomic_compare_exchange_strong(&known[at].code, &free, (uintptr_t)code))
      atomic_store_explicit(&known[at].library, (uintptr_t)info.dli_fbase, memory_order_release);
    return (uintptr_t)info.dli_fbase;
  }
  Dl_info info;
  return dladdr(code, &info) ? (uintptr_t)info.dli_fbase : 0;
}

void library_name(uintptr_t library, char *to, size_t len) {
  Dl_info info;
  const char *name = library && dladdr((void *)library, &info) ? info.dli_fname : NULL;
  snprintf(to, len, "%s", name && *name ? name : "?");
}
