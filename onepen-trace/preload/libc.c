/* In place of the C library's fcntl, close and sleeps. Each does what the real
** one does, and looks at what it did. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "inside.h"

#undef fcntl
#undef fcntl64

typedef int (*fcntl_t)(int, int, void *);
typedef int (*close_t)(int);
typedef int (*nanosleep_t)(const struct timespec *, struct timespec *);
typedef int (*usleep_t)(useconds_t);
typedef int (*clock_nanosleep_t)(clockid_t, int, const struct timespec *, struct timespec *);

static fcntl_t real_fcntl, real_fcntl64;
static close_t real_close;
static nanosleep_t real_nanosleep;
static usleep_t real_usleep;
static clock_nanosleep_t real_clock_nanosleep;

/* Early: a constructor that runs before this one finds them unset, and gets the
** system call. */
__attribute__((constructor(101))) static void find_real(void) {
  real_fcntl64 = (fcntl_t)dlsym(RTLD_NEXT, "fcntl64");
  real_fcntl = (fcntl_t)dlsym(RTLD_NEXT, "fcntl");
  real_close = (close_t)dlsym(RTLD_NEXT, "close");
  real_nanosleep = (nanosleep_t)dlsym(RTLD_NEXT, "nanosleep");
  real_usleep = (usleep_t)dlsym(RTLD_NEXT, "usleep");
  real_clock_nanosleep = (clock_nanosleep_t)dlsym(RTLD_NEXT, "clock_nanosleep");
}

/* Bytes that SQLite locks, of a database or of its -shm file. */
static bool is_sqlites(const struct flock *lock) {
  off_t start = lock->l_start, len = lock->l_len;
  if (lock->l_whence != SEEK_SET) return false;
  if (start >= 120 && start <= 128) return len >= 1 && start + len <= 129;
  if (start >= 0x40000000 && start < 0x40000000 + 512) return len >= 1 && len <= 512;
  return start == 0 && len == 0 && lock->l_type == F_UNLCK;
}

static int call_fcntl(fcntl_t real, int fd, int cmd, void *arg) {
  return real ? real(fd, cmd, arg) : (int)syscall(SYS_fcntl, fd, cmd, arg);
}

static int fcntl_seen(fcntl_t real, int fd, int cmd, void *arg, void *caller, void *frame) {
  if ((cmd != F_SETLK && cmd != F_SETLKW && cmd != F_OFD_SETLK && cmd != F_OFD_SETLKW) || !shared ||
      !arg || !is_sqlites(arg))
    return call_fcntl(real, fd, cmd, arg);
  const struct flock asked = *(struct flock *)arg;
  struct thread *t = self();
  if (!t || t->inside) return call_fcntl(real, fd, cmd, arg);
  t->frame = (uintptr_t)frame;
  int result = call_fcntl(real, fd, cmd, arg);
  int saved = errno;
  t->inside = true;
  bool refused = result == -1 && (saved == EAGAIN || saved == EACCES);
  struct file *file = result == 0 || refused ? file_of(fd, asked.l_len ? asked.l_start : -1, false) : NULL;
  if (file) {
    if (asked.l_type != F_UNLCK) whose(file, caller);
    locked(file, asked.l_type, asked.l_start, asked.l_len, fd, refused);
  }
  t->inside = false;
  errno = saved;
  return result;
}

PUBLIC int fcntl(int fd, int cmd, ...) {
  va_list rest;
  va_start(rest, cmd);
  void *arg = va_arg(rest, void *);
  va_end(rest);
  return fcntl_seen(real_fcntl, fd, cmd, arg, __builtin_return_address(0),
                    __builtin_frame_address(0));
}

PUBLIC int fcntl64(int fd, int cmd, ...) {
  va_list rest;
  va_start(rest, cmd);
  void *arg = va_arg(rest, void *);
  va_end(rest);
  fcntl_t real = real_fcntl64 ? real_fcntl64 : real_fcntl;
  return fcntl_seen(real, fd, cmd, arg, __builtin_return_address(0),
                    __builtin_frame_address(0));
}

PUBLIC int close(int fd) {
  struct thread *t = shared ? self() : NULL;
  if (t && !t->inside) {
    int saved = errno;
    t->inside = true;
    closing(fd, __builtin_return_address(0));
    t->inside = false;
    errno = saved;
  }
  return real_close ? real_close(fd) : (int)syscall(SYS_close, fd);
}

/* Sleeps are of interest where somebody asks for SQLite's locks. */
static bool watches(struct thread *t) { return t && !t->inside && (t->depth || any_files()); }

static void after(uint64_t asked, uint64_t began, void *caller) {
  struct thread *t = self();
  int saved = errno;
  t->inside = true;
  slept(asked, now() - began, caller);
  t->inside = false;
  errno = saved;
}

PUBLIC int nanosleep(const struct timespec *asked, struct timespec *left) {
  bool seen = asked && shared && watches(self());
  uint64_t began = seen ? now() : 0;
  int result = real_nanosleep ? real_nanosleep(asked, left) : (int)syscall(SYS_nanosleep, asked, left);
  if (seen)
    after((uint64_t)asked->tv_sec * 1000000000u + (uint64_t)asked->tv_nsec, began,
          __builtin_return_address(0));
  return result;
}

PUBLIC int usleep(useconds_t asked) {
  bool seen = shared && watches(self());
  uint64_t began = seen ? now() : 0;
  struct timespec time = {.tv_sec = asked / 1000000, .tv_nsec = (asked % 1000000) * 1000L};
  int result = real_usleep ? real_usleep(asked) : (int)syscall(SYS_nanosleep, &time, NULL);
  if (seen) after((uint64_t)asked * 1000, began, __builtin_return_address(0));
  return result;
}

PUBLIC int clock_nanosleep(clockid_t clock, int how, const struct timespec *asked,
                           struct timespec *left) {
  bool seen = asked && how == 0 && shared && watches(self());
  uint64_t began = seen ? now() : 0;
  int result = real_clock_nanosleep
                   ? real_clock_nanosleep(clock, how, asked, left)
                   : (int)-syscall(SYS_clock_nanosleep, clock, how, asked, left);
  if (seen)
    after((uint64_t)asked->tv_sec * 1000000000u + (uint64_t)asked->tv_nsec, began,
          __builtin_return_address(0));
  return result;
}
