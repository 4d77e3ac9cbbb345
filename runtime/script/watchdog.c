/* Owns the watchdog of each thread: a timer of its CPU time, whose signal the thread itself gets.
 * Called around every call into Lua. Invariant: it jumps only out of code of LuaJIT's own or code
 * that LuaJIT has compiled, never while a function of ours is on the stack, nor out of the C
 * library: then nothing but the VM is left in an odd state. Compiled with -fexceptions: errors of
 * Lua unwind through called_from_lua. */
#include "script/watchdog.h"

#include <luajit.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#include "base/log.h"
#include "script/code.h"
#include "script/vm.h"

enum { TICK_MS = 10, GRACE_MS = 10 };
static const int64_t MS = 1000000;

enum stage { CALM, ASKED, INSISTED };
enum reason { OF_TIME, OF_MEMORY };

struct watch {
    struct gw_vm *vm;  /* whose code runs; NULL: none */
    volatile int host; /* functions of C on the stack that are not LuaJIT's */
    enum stage stage;
    enum reason reason;
    unsigned runs, seen; /* calls into Lua; the one that the timer has seen last */
    int64_t since_ns;    /* CPU time when it did */
    int64_t asked_ns;    /* CPU time since which the program should end */
    bool raised;         /* an error has been raised in it */
    sigjmp_buf out;
    timer_t timer;
    bool started;
};
static __thread struct watch watch;

/* Between these, in this thread's view, the signal handler finds `watch` in a known state. */
static inline void barrier(void)
{
    __asm__ volatile("" ::: "memory");
}

static int64_t cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void calm(struct watch *w)
{
    lua_sethook(w->vm->L, NULL, 0, 0);
    w->stage = CALM;
}

/* Much of what a VM holds may be garbage that nobody had come to collect. */
static bool is_enough(struct watch *w)
{
    struct gw_vm *vm = w->vm;
    int64_t before = cpu_ns();
    w->host++;
    lua_gc(vm->L, LUA_GCCOLLECT, 0);
    w->host--;
    w->since_ns += cpu_ns() - before; /* which was not the program's */
    return vm->heap.used <= vm->max_memory - vm->max_memory / 8;
}

/* LuaJIT calls it before the next instruction. */
static void raise_error(lua_State *L, lua_Debug *at)
{
    struct watch *w = &watch;
    if (!w->vm || (w->reason == OF_MEMORY && is_enough(w))) {
        lua_sethook(L, NULL, 0, 0);
        w->stage = CALM;
        return;
    }
    if (w->stage == ASKED) {
        lua_sethook(L, NULL, 0, 0);
        w->raised = true;
        w->asked_ns = cpu_ns();
    }
    lua_getinfo(L, "Sl", at);
    lua_pushfstring(L, "%s:%d: ", at->short_src, at->currentline);
    if (w->reason == OF_TIME)
        lua_pushfstring(L, "stopped: it took more than %d ms", (int)(w->vm->run_ns / MS));
    else
        lua_pushfstring(L, "stopped: its VM took more than %d MiB of memory",
                        (int)(w->vm->max_memory >> 20));
    /* While it is loaded the limits are not those of the configuration. */
    if (w->vm->generation)
        lua_pushstring(L, w->reason == OF_TIME ? " (lua.maxRunTime)" : " (lua.maxMemory)");
    else
        lua_pushliteral(L, "");
    lua_concat(L, 3);
    lua_error(L);
}

static void ask(struct watch *w, enum stage stage, enum reason reason)
{
    w->reason = reason;
    w->stage = stage;
    w->raised = false;
    w->asked_ns = cpu_ns();
    lua_sethook(w->vm->L, raise_error, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT,
                1);
}

static void jump(struct watch *w)
{
    w->vm->dead = true;
    w->vm->too_large = w->reason == OF_MEMORY;
    siglongjmp(w->out, 1);
}

/* A program that catches errors is told again, at every instruction, until it is out. */
static void escalate(struct watch *w, uintptr_t at)
{
    int64_t late = cpu_ns() - w->asked_ns;
    if (w->stage == CALM) {
        ask(w, ASKED, OF_TIME);
    } else if (w->stage == ASKED && w->raised) {
        if (late >= GRACE_MS * MS)
            ask(w, INSISTED, w->reason);
    } else if (late >= GRACE_MS * MS && w->host == 0 && gw_code_at(at) != GW_CODE_OTHER) {
        w->vm->compiled = gw_code_at(at) == GW_CODE_COMPILED;
        jump(w);
    }
}

static uintptr_t interrupted_at(const ucontext_t *context)
{
#if defined(__x86_64__)
    return (uintptr_t)context->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
    return (uintptr_t)context->uc_mcontext.pc;
#else
#error "where does this processor keep its program counter?"
#endif
}

static void on_tick(int number, siginfo_t *info, void *context)
{
    (void)number, (void)info;
    struct watch *w = &watch;
    if (!w->vm || w->vm->run_ns == 0)
        return;
    int64_t now = cpu_ns();
    if (w->seen != w->runs) {
        w->seen = w->runs;
        w->since_ns = now;
    }
    if (now - w->since_ns >= w->vm->run_ns)
        escalate(w, interrupted_at(context));
}

/* For the whole process, once; the threads that come later find it done. */
static void prepare(void)
{
    struct sigaction action = {.sa_sigaction = on_tick, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGRTMIN, &action, NULL);
    gw_code_survey();
}

static void block_tick(int how)
{
    sigset_t tick;
    sigemptyset(&tick);
    sigaddset(&tick, SIGRTMIN);
    pthread_sigmask(how, &tick, NULL);
}

bool gw_watchdog_start(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (watch.started)
        return false;
    pthread_once(&once, prepare);
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN};
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    watch.started = timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &watch.timer) == 0;
    if (!watch.started) {
        gw_log(GW_LOG_WARN,
               "no timer of CPU time: hooks that do not come back are not stopped: %m");
        return false;
    }
    struct timespec tick = {.tv_nsec = TICK_MS * MS};
    struct itimerspec ticks = {tick, tick};
    block_tick(SIG_UNBLOCK);
    timer_settime(watch.timer, 0, &ticks, NULL);
    return true;
}

void gw_watchdog_stop(void)
{
    if (watch.started)
        timer_delete(watch.timer);
    watch.started = false;
}

static void leave(int **host)
{
    --**host;
}

static int called_from_lua(lua_State *L, lua_CFunction function)
{
    __attribute__((cleanup(leave))) int *host = (int *)&watch.host;
    ++*host;
    return function(L);
}

void gw_watchdog_attach(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)called_from_lua);
    luaJIT_setmode(L, -1, LUAJIT_MODE_WRAPCFUNC | LUAJIT_MODE_ON);
    lua_pop(L, 1);
}

static void enter(struct watch *w, struct gw_vm *vm)
{
    w->host = 0;
    w->runs++;
    barrier();
    w->vm = vm;
}

static void leave_by_itself(struct watch *w)
{
    struct gw_vm *vm = w->vm;
    if (w->stage != CALM) {
        vm->eaten |= w->reason == OF_MEMORY && w->raised;
        calm(w);
    }
    w->vm = NULL;
    barrier();
}

/* The signal that brought us here is blocked while its handler runs, which never ended. */
static int leave_by_force(struct watch *w)
{
    w->vm = NULL;
    w->stage = CALM;
    block_tick(SIG_UNBLOCK);
    return GW_LUA_STOPPED;
}

int gw_watch_resume(struct gw_vm *vm, lua_State *co, int nargs)
{
    if (sigsetjmp(watch.out, 0))
        return leave_by_force(&watch);
    enter(&watch, vm);
    int status = lua_resume(co, nargs);
    leave_by_itself(&watch);
    return status;
}

int gw_watch_pcall(struct gw_vm *vm, lua_State *L, int nargs, int nresults, int handler)
{
    if (sigsetjmp(watch.out, 0))
        return leave_by_force(&watch);
    enter(&watch, vm);
    int status = lua_pcall(L, nargs, nresults, handler);
    leave_by_itself(&watch);
    return status;
}

void gw_watch_digest(struct gw_vm *vm)
{
    if (vm->eaten && !vm->dead)
        lua_gc(vm->L, LUA_GCCOLLECT, 0);
    vm->eaten = false;
}

void gw_watch_restart(void)
{
    watch.runs++;
    if (watch.vm && watch.stage != CALM && watch.reason == OF_TIME)
        calm(&watch);
}

/* A function of ours that asked for memory gets an error like any other one. */
static bool may_grow(struct watch *w, struct gw_vm *vm, size_t more)
{
    if (w->vm != vm || vm->eaten)
        return true;
    if (vm->heap.used + more > 2 * vm->max_memory) {
        if (w->host)
            return false;
        w->reason = OF_MEMORY;
        vm->compiled = true; /* LuaJIT expects errors here */
        jump(w);
    }
    if (w->stage == CALM)
        ask(w, ASKED, OF_MEMORY);
    return true;
}

void *gw_watch_alloc(void *data, void *ptr, size_t old_size, size_t size)
{
    struct gw_vm *vm = data;
    if (!ptr)
        old_size = 0;
    if (size > old_size && vm->max_memory && vm->heap.used + (size - old_size) > vm->max_memory &&
        !may_grow(&watch, vm, size - old_size))
        return NULL;
    return gw_heap_realloc(&vm->heap, ptr, old_size, size);
}
