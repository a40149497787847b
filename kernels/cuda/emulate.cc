/* kernels/cuda/emulate.cc - Fibres, barriers, shuffles and device memory of emulate.h, and the
 * CUDA files compiled against it, which make the backend "emulated".
 *
 * One thread of a block runs until it waits or ends; then the next that can run goes on, on the
 * same stack where the one before has ended: a kernel without barriers costs a call a thread.
 * On x86-64 the switch between fibres is a few instructions, elsewhere swapcontext(). */
#include "kernels/cuda/emulate.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define POISON(p, n) __asan_poison_memory_region(p, n)
#define UNPOISON(p, n) __asan_unpoison_memory_region(p, n)
#else
#define POISON(p, n) (void)0
#define UNPOISON(p, n) (void)0
#endif

nsm_emulated_thread nsm_emulated_now;
alignas(128) char nsm_emulated_shared[NSM_EMULATED_SHARED];

namespace {

enum { MOST_THREADS = 1024, WARP = 32, STACK = 256 << 10 };

[[noreturn]] void fail(const char *what, const char *file, int line)
{
    fprintf(stderr, "emulated kernel: %s (%s:%d), block %u, thread %u\n", what, file, line,
            nsm_emulated_now.block.x, nsm_emulated_now.thread.x);
    abort();
}

/* ---- fibres ---- */

struct fibre {
    char *stack;
#if defined(__x86_64__)
    void *sp;
#else
    ucontext_t context;
#endif
    void *fake; /* ASan's */
};

fibre stacks[MOST_THREADS], home; /* home: the program's own stack, where launches come from */
int idle[MOST_THREADS], idles, made;
#if defined(__SANITIZE_ADDRESS__)
const void *home_bottom;
size_t home_size;
#endif

extern "C" void nsm_emulated_enter(void);

#if defined(__x86_64__)
extern "C" void nsm_emulated_switch(void **from, void *to);
__asm__(".text\n.globl nsm_emulated_switch\n.hidden nsm_emulated_switch\n.type "
        "nsm_emulated_switch,@function\n"
        "nsm_emulated_switch:\n"
        "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
        "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
        "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
        ".size nsm_emulated_switch,.-nsm_emulated_switch\n");
#endif

/* Go from one fibre to another; from NULL: the one that runs ends here. */
void go(fibre *from, fibre *to)
{
    fibre nowhere;
    fibre *save = from ? from : &nowhere;
#if defined(__SANITIZE_ADDRESS__)
    const void *bottom = to == &home ? home_bottom : to->stack;
    __sanitizer_start_switch_fiber(from ? &from->fake : nullptr, bottom,
                                   to == &home ? home_size : (size_t)STACK);
#endif
#if defined(__x86_64__)
    nsm_emulated_switch(&save->sp, to->sp);
#else
    swapcontext(&save->context, &to->context);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(save->fake, nullptr, nullptr);
#endif
}

/* A stack with nothing on it yet, ready to enter. */
int fresh_stack(void)
{
    int i = idles ? idle[--idles] : made++;
    fibre *f = &stacks[i];
    if (!f->stack) {
        f->stack = (char *)mmap(nullptr, STACK, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (f->stack == (char *)MAP_FAILED) fail("out of memory for stacks", __FILE__, __LINE__);
    }
    UNPOISON(f->stack, STACK);
    f->fake = nullptr;
#if defined(__x86_64__)
    /* Not all at one distance from a page's end: they would share a few lines of the cache. */
    void **top = (void **)(f->stack + STACK - 64 - i * 192 % 12288);
    *--top = nullptr;                      /* what a call would have left: the stack's alignment */
    *--top = (void *)nsm_emulated_enter;
    for (int r = 0; r < 6; r++) *--top = nullptr;
    f->sp = top;
#else
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK;
    f->context.uc_link = nullptr;
    makecontext(&f->context, nsm_emulated_enter, 0);
#endif
    return i;
}

/* ---- the threads of the block that runs ---- */

enum state { NEW, READY, AT_BARRIER, AT_EXCHANGE, ENDED };

struct warp_state {
    uint64_t slot[2][WARP]; /* deposits, by turns: a fast lane may be one exchange ahead */
    unsigned arrived, mask, turn;
    const char *file;
    int line;
};

struct thread_state {
    state now;
    int stack;
    unsigned turn;
    const char *file; /* where it waits */
    int line;
};

thread_state threads[MOST_THREADS];
warp_state warps[MOST_THREADS / WARP];
int queue[MOST_THREADS], first, queued, count, live, running;
void (*body)(const void *);
const void *what;
uint64_t order = 1; /* state of the shuffling */
dim3 shape;

unsigned below(unsigned n)
{
    order = order * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)((order >> 33) % n);
}

void push(int t)
{
    queue[(first + queued++) % MOST_THREADS] = t;
}

/* For the rest of a warp: it goes on before others begin, while its stacks are in the cache. */
void push_first(int t)
{
    first = (first + MOST_THREADS - 1) % MOST_THREADS;
    queue[first] = t;
    queued++;
}

int pop(void)
{
    int t = queue[first];
    first = (first + 1) % MOST_THREADS;
    queued--;
    return t;
}

void set_thread(int t)
{
    running = t;
    nsm_emulated_now.thread.x = (unsigned)t % shape.x;
    nsm_emulated_now.thread.y = (unsigned)t / shape.x % shape.y;
    nsm_emulated_now.thread.z = (unsigned)t / shape.x / shape.y;
}

/* Everybody waits: fine if all that live stand at one barrier, which then opens. */
void open_barrier(void)
{
    const thread_state *seen = nullptr;
    for (int t = 0; t < count; t++) {
        const thread_state *s = &threads[t];
        if (s->now == ENDED) continue;
        set_thread(t);
        if (s->now == AT_EXCHANGE)
            fail("a lane waits for others of its warp that never come", s->file, s->line);
        if (seen && (seen->line != s->line || strcmp(seen->file, s->file)))
            fail("threads wait at different barriers", s->file, s->line);
        seen = s;
    }
    int from = (int)below((unsigned)count);
    for (int k = 0; k < count; k++) {
        int t = (from + k) % count;
        if (threads[t].now == ENDED) continue;
        threads[t].now = READY;
        push(t);
    }
}

/* The running thread has to wait, or has ended (me NULL): let another go on. */
void let_another(fibre *me)
{
    if (!queued && live) open_barrier();
    if (!queued) {
        go(me, &home);
        return;
    }
    int t = pop();
    if (threads[t].now == NEW) threads[t].stack = fresh_stack();
    set_thread(t);
    if (&stacks[threads[t].stack] != me) go(me, &stacks[threads[t].stack]);
}

void wait(state how, const char *file, int line)
{
    int me = running;
    thread_state *t = &threads[me];
    t->now = how;
    t->file = file;
    t->line = line;
    let_another(&stacks[t->stack]);
    set_thread(me);
}

/* ---- shared memory of a size that the launch says, and copies into it ---- */

enum { MOST_COPIES = 96 };
struct small_copy { void *to; const void *from; };
small_copy copies[MOST_THREADS][MOST_COPIES]; /* what each thread has yet to make */
int copies_of[MOST_THREADS];
size_t shared_bytes; /* of the launch that runs */

void open_shared(void)
{
    memset(copies_of, 0, sizeof copies_of);
    if (!shared_bytes) return;
    UNPOISON(nsm_emulated_shared, NSM_EMULATED_SHARED);
    memset(nsm_emulated_shared, 0xff, shared_bytes);
    POISON(nsm_emulated_shared + shared_bytes, NSM_EMULATED_SHARED - shared_bytes);
}

/* ---- device memory ---- */

enum : size_t { ROOM = (size_t)1 << 38, REDZONE = 128, MUCH = 4 << 20, CLASSES = 64 * 4 };
struct piece { size_t bytes; piece *next; };
char *device;          /* ROOM addresses, of which `used` have been handed out */
size_t used, opened;
piece *freed[CLASSES];
bool device_open;
unsigned turns;

/* Let kernels and copies, and nobody else, reach what has been handed out. */
void open_device(bool open)
{
    if (open == device_open && opened == used) return;
    if (used && mprotect(device, used, open ? PROT_READ | PROT_WRITE : PROT_NONE))
        fail("mprotect", __FILE__, __LINE__);
    device_open = open;
    opened = used;
}

bool on_device(const void *p)
{
    return device && (const char *)p >= device && (const char *)p < device + used;
}

pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER; /* the device serves one call at a time */
struct turn_of {
    turn_of() { pthread_mutex_lock(&one); open_device(true); }
    /* Shutting costs time by the page: with much memory it is done once in a while. */
    ~turn_of()
    {
        if (used < MUCH || ++turns % 64 == 0) open_device(false);
        pthread_mutex_unlock(&one);
    }
};

/* Sizes are rounded up to a quarter of a power of two. */
int class_of(size_t bytes, size_t *rounded)
{
    if (bytes < 256) bytes = 256;
    int top = 63 - __builtin_clzll(bytes);
    size_t step = (size_t)1 << (top - 2), quarter = (bytes - ((size_t)1 << top) + step - 1) / step;
    *rounded = ((size_t)1 << top) + quarter * step;
    return top * 4 + (int)quarter;
}

/* ---- copies that are made late ----
 * One from pinned memory is made as late as its stream allows: when something else is asked of the
 * stream, when another waits for its event, when the host waits.  So what does not wait reads old
 * numbers, and a host that changes what it has sent sends the change. */
struct late {
    void *to;
    const void *from;
    size_t bytes;
    uint64_t number;
    late *next;
};
enum : uint64_t { ALL = ~(uint64_t)0 };
struct pinned {
    char *p;
    size_t bytes;
    pinned *next;
};
pinned *pins;

bool is_pinned(const void *p)
{
    for (pinned *i = pins; i; i = i->next)
        if ((const char *)p >= i->p && (const char *)p < i->p + i->bytes) return true;
    return false;
}

} /* namespace */

struct nsm_emulated_graph {
    nsm_emulated_work *first, *last;
    struct own { void *p; own *next; } *memory; /* asked for while captured: freed with it */
};
struct nsm_emulated_stream {
    late *first, *last;
    uint64_t asked;
    nsm_emulated_graph *captured; /* NULL: what is asked is done */
};
struct nsm_emulated_event {
    cudaStream_t of;
    uint64_t number;
};

namespace
{

/* Make what was asked of this stream up to that number. */
void catch_up(cudaStream_t s, uint64_t number)
{
    while (s && s->first && s->first->number <= number) {
        late *l = s->first;
        memmove(l->to, l->from, l->bytes);
        s->first = l->next;
        free(l);
    }
}

void make_late(cudaStream_t s, void *to, const void *from, size_t bytes)
{
    late *l = (late *)malloc(sizeof *l);
    if (!l) fail("out of memory", __FILE__, __LINE__);
    *l = late{ to, from, bytes, ++s->asked, nullptr };
    if (s->first) s->last->next = l;
    else s->first = l;
    s->last = l;
}

void run_block(void)
{
    count = (int)(shape.x * shape.y * shape.z);
    live = count;
    first = queued = 0;
    memset(warps, 0, sizeof warps);
    open_shared();
    int from = (int)below((unsigned)count), down = (int)below(2);
    for (int k = 0; k < count; k++) {
        int t = (from + (down ? count - k : k)) % count;
        threads[t].now = NEW;
        threads[t].turn = 0;
        push(t);
    }
    int t = pop();
    threads[t].stack = fresh_stack();
    set_thread(t);
    go(&home, &stacks[threads[t].stack]);
}

} /* namespace */

/* The first thing on a new stack: run this thread, and then every next one that is new, too. */
extern "C" void nsm_emulated_enter(void)
{
#if defined(__SANITIZE_ADDRESS__)
    const void *bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
    if (!home_bottom) home_bottom = bottom, home_size = size; /* the first fibre comes from home */
#endif
    for (;;) {
        int stack = threads[running].stack;
        body(what);
        if (copies_of[running]) nsm_emulated_fail("a thread ends before its copies");
        threads[running].now = ENDED;
        live--;
        if (queued && threads[queue[first]].now == NEW) {
            int t = pop();
            threads[t].stack = stack;
            set_thread(t);
            continue;
        }
        idle[idles++] = stack;
        let_another(nullptr);
    }
}

void nsm_emulated_barrier(const char *file, int line) { wait(AT_BARRIER, file, line); }

unsigned nsm_emulated_lane(void) { return (unsigned)running % WARP; }

const uint64_t *nsm_emulated_exchange(unsigned mask, uint64_t mine, const char *file, int line)
{
    int me = running;
    unsigned lane = (unsigned)me % WARP;
    warp_state *w = &warps[me / WARP];
    if (!(mask >> lane & 1)) fail("a lane is not in the mask it gives", file, line);
    if (w->arrived &&
        (w->mask != mask || w->line != line || (w->file != file && strcmp(w->file, file))))
        fail("lanes of a warp are at different shuffles", file, line);
    w->mask = mask;
    w->file = file;
    w->line = line;
    w->slot[w->turn][lane] = mine;
    threads[me].turn = w->turn;
    w->arrived |= 1u << lane;
    if (w->arrived == mask) {
        for (int i = 0; i < WARP; i++) {
            int t = me / WARP * WARP + i;
            if (t == me || !(mask >> i & 1)) continue;
            threads[t].now = READY;
            push_first(t);
        }
        w->arrived = 0;
        w->turn ^= 1;
    } else {
        wait(AT_EXCHANGE, file, line);
    }
    return w->slot[threads[me].turn];
}

void nsm_emulated_fail(const char *why) { fail(why, __FILE__, __LINE__); }

void nsm_emulated_copy_late(void *to, const void *from)
{
    if ((uintptr_t)to % 16 || (uintptr_t)from % 16) nsm_emulated_fail("a copy is not aligned");
    if (copies_of[running] == MOST_COPIES) nsm_emulated_fail("copies that nobody waits for");
    copies[running][copies_of[running]++] = small_copy{ to, from };
}

void nsm_emulated_copies_wait(void)
{
    for (int i = 0; i < copies_of[running]; i++) {
        const small_copy *c = &copies[running][i];
        if (c->from) memcpy(c->to, c->from, 16);
        else memset(c->to, 0, 16);
    }
    copies_of[running] = 0;
}

void nsm_emulated_argument(const void *p, const char *kernel)
{
    if (!p || on_device(p) || p == device + used) return;
    fprintf(stderr, "emulated kernel: %s is given a pointer to host memory\n", kernel);
    abort();
}

bool nsm_emulated_capturing(cudaStream_t s) { return s && s->captured; }

void nsm_emulated_add(cudaStream_t s, nsm_emulated_work *w)
{
    nsm_emulated_graph *g = s->captured;
    if (!w) fail("out of memory", __FILE__, __LINE__);
    if (g->first) g->last->next = w;
    else g->first = w;
    g->last = w;
}

/* Copies and fills: between their launches others may have shut the device. */
template <class Touch> static void keep_touch(cudaStream_t s, const Touch &touch)
{
    nsm_emulated_keep(s, [=] {
        turn_of now;
        touch();
    });
}

/* What a stream that is captured does not do. */
static void not_captured(cudaStream_t s, const char *what)
{
    if (nsm_emulated_capturing(s)) fail(what, __FILE__, __LINE__);
}

void nsm_emulated_run(cudaStream_t stream, dim3 grid, dim3 block, size_t shared,
                      void (*thread)(const void *), const void *job)
{
    turn_of now;
    if (shared > NSM_EMULATED_SHARED) fail("too much shared memory", __FILE__, __LINE__);
    shared_bytes = shared;
    catch_up(stream, ALL);
    uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;
    if (!blocks || block.x * block.y * block.z == 0 || block.x * block.y * block.z > MOST_THREADS ||
        grid.y > 65535 || grid.z > 65535)
        fail("this shape of a launch is not allowed", __FILE__, __LINE__);
    body = thread;
    what = job;
    shape = block;
    nsm_emulated_now.block_dim = { block.x, block.y, block.z };
    nsm_emulated_now.grid_dim = { grid.x, grid.y, grid.z };
    /* A step that shares no factor with the number of blocks visits each once. */
    uint64_t step = blocks / 2 + 1 + below(7),
             at = below((unsigned)(blocks > 0xffffffffu ? 0xffffffffu : blocks));
    auto shares = [&] {
        uint64_t a = step, b = blocks;
        while (b) {
            uint64_t r = a % b;
            a = b;
            b = r;
        }
        return a != 1;
    };
    while (shares()) step++;
    for (uint64_t i = 0; i < blocks; i++, at = (at + step) % blocks) {
        nsm_emulated_now.block = { (unsigned)(at % grid.x), (unsigned)(at / grid.x % grid.y),
                                   (unsigned)(at / grid.x / grid.y) };
        run_block();
    }
}

/* ---- the runtime's calls ---- */

/* Memory of a captured stream is its graph's, and at every launch there is rubbish in it. */
static cudaError_t malloc_captured(void **p, size_t bytes, cudaStream_t stream)
{
    nsm_emulated_graph *graph = stream->captured;
    stream->captured = nullptr;
    cudaError_t e = cudaMallocAsync(p, bytes, stream);
    stream->captured = graph;
    if (e != cudaSuccess) return e;
    void *at = *p;
    nsm_emulated_graph::own *o = (nsm_emulated_graph::own *)malloc(sizeof *o);
    if (!o) fail("out of memory", __FILE__, __LINE__);
    *o = { at, graph->memory };
    graph->memory = o;
    keep_touch(stream, [=] { memset(at, 0xff, bytes); });
    return e;
}

cudaError_t cudaMallocAsync(void **p, size_t bytes, cudaStream_t stream)
{
    size_t rounded;
    if (nsm_emulated_capturing(stream)) return malloc_captured(p, bytes, stream);
    if (bytes > ROOM / 4) return cudaErrorMemoryAllocation;
    turn_of now;
    catch_up(stream, ALL);
    if (!device) {
        void *all = mmap(nullptr, ROOM, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                         0);
        if (all == MAP_FAILED) return cudaErrorMemoryAllocation;
        device = (char *)all;
    }
    int k = class_of(bytes + 2 * REDZONE, &rounded);
    char *at = (char *)freed[k];
    if (at) {
        freed[k] = freed[k]->next;
    } else {
        if (used + rounded > ROOM) return cudaErrorMemoryAllocation;
        at = device + used;
        used += (rounded + 4095) & ~(size_t)4095;
        open_device(true);
    }
    UNPOISON(at, rounded);
    ((piece *)at)->bytes = bytes;
    memset(at + REDZONE, 0xff, bytes); /* NaN: nobody may count on zeros */
    POISON(at + sizeof(piece), REDZONE - sizeof(piece));
    POISON(at + REDZONE + bytes, rounded - REDZONE - bytes);
    *p = at + REDZONE;
    return cudaSuccess;
}

cudaError_t cudaFreeAsync(void *p, cudaStream_t stream)
{
    size_t rounded;
    if (!p) return cudaSuccess;
    if (nsm_emulated_capturing(stream)) {
        for (nsm_emulated_graph::own *o = stream->captured->memory; o; o = o->next)
            if (o->p == p) return cudaSuccess;
        fail("a capture frees what it has not asked for", __FILE__, __LINE__);
    }
    turn_of now;
    catch_up(stream, ALL);
    piece *at = (piece *)((char *)p - REDZONE);
    int k = class_of(at->bytes + 2 * REDZONE, &rounded);
    at->next = freed[k];
    freed[k] = at;
    POISON((char *)at + sizeof(piece), rounded - sizeof(piece));
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    turn_of now;
    bool wants_from = kind != cudaMemcpyHostToDevice, wants_to = kind != cudaMemcpyDeviceToHost;
    if (bytes && (on_device(from) != wants_from || on_device(to) != wants_to))
        fail("a copy between the wrong sides", __FILE__, __LINE__);
    if (nsm_emulated_capturing(stream)) {
        if (kind == cudaMemcpyDeviceToHost) not_captured(stream, "a capture copies to the host");
        if (kind == cudaMemcpyHostToDevice && !is_pinned(from))
            not_captured(stream, "a capture copies from memory that is not pinned");
        keep_touch(stream, [=] { memmove(to, from, bytes); });
        return cudaSuccess;
    }
    if (bytes && kind == cudaMemcpyHostToDevice && is_pinned(from)) {
        make_late(stream, to, from, bytes);
        return cudaSuccess;
    }
    catch_up(stream, ALL);
    if (bytes) memmove(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream)
{
    if (nsm_emulated_capturing(stream)) {
        keep_touch(stream, [=] { memset(p, value, bytes); });
        return cudaSuccess;
    }
    turn_of now;
    catch_up(stream, ALL);
    if (bytes) memset(p, value, bytes);
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    pinned *one = (pinned *)malloc(sizeof *one);
    *p = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    if (!*p || !one) {
        free(*p);
        free(one);
        return cudaErrorMemoryAllocation;
    }
    turn_of now;
    *one = pinned{ (char *)*p, bytes, pins };
    pins = one;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *p)
{
    turn_of now;
    pinned **at = &pins;
    while (*at && (*at)->p != p) at = &(*at)->next;
    if (!*at) fail("memory is freed that is not pinned", __FILE__, __LINE__);
    pinned *one = *at;
    *at = one->next;
    free(one);
    free(p);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    *s = (cudaStream_t)calloc(1, sizeof **s);
    return *s ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    not_captured(s, "the host waits for a capture");
    turn_of now;
    catch_up(s, ALL);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    cudaStreamSynchronize(s);
    free(s);
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    *e = (cudaEvent_t)calloc(1, sizeof **e);
    return *e ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    free(e);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    not_captured(s, "an event in a capture");
    *e = nsm_emulated_event{ s, s->asked };
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    turn_of now;
    catch_up(e->of, e->number);
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned)
{
    not_captured(s, "a capture waits for an event");
    return cudaEventSynchronize(e);
}

/* ---- graphs: one that was captured is made executable by handing it on ---- */
cudaError_t cudaStreamBeginCapture(cudaStream_t s, int)
{
    not_captured(s, "a capture within a capture");
    s->captured = (nsm_emulated_graph *)calloc(1, sizeof *s->captured);
    return s->captured ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph)
{
    *graph = s->captured;
    s->captured = nullptr;
    return *graph ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *all, cudaGraph_t graph, unsigned long long)
{
    *all = (cudaGraphExec_t)malloc(sizeof **all);
    if (!*all) return cudaErrorMemoryAllocation;
    **all = *graph;
    *graph = nsm_emulated_graph{};
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    while (nsm_emulated_graph::own *o = graph->memory) {
        cudaFreeAsync(o->p, nullptr);
        graph->memory = o->next;
        free(o);
    }
    while (nsm_emulated_work *w = graph->first) {
        graph->first = w->next;
        free(w);
    }
    free(graph);
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t all) { return cudaGraphDestroy(all); }

cudaError_t cudaGraphLaunch(cudaGraphExec_t all, cudaStream_t s)
{
    not_captured(s, "a graph within a capture");
    for (const nsm_emulated_work *w = all->first; w; w = w->next) w->run(w);
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int)
{
    *p = cudaDeviceProp{ "emulated", 0, 0, 3, 1 };
    return cudaSuccess;
}

#include "kernels/cuda/backend.cu"
#include "kernels/cuda/copy.cu"
#include "kernels/cuda/replay.cu"
#include "kernels/cuda/gemm.cu"
#include "kernels/cuda/elementwise.cu"
#include "kernels/cuda/dense.cu"
#include "kernels/cuda/norm.cu"
#include "kernels/cuda/loss.cu"
#include "kernels/cuda/optimizer.cu"
#include "kernels/cuda/sparse.cu"
#include "kernels/cuda/gather.cu"
#include "kernels/cuda/attention.cu"
#include "kernels/cuda/attend.cu"
#include "kernels/cuda/attend_back.cu"
#include "kernels/cuda/attend_rows.cu"
#include "kernels/cuda/conv1d.cu"
#include "kernels/cuda/recurrence.cu"
#include "kernels/cuda/recurrence_back.cu"
#include "kernels/cuda/scan.cu"
#include "kernels/cuda/rnn.cu"
#include "kernels/cuda/memory.cu"
#include "kernels/cuda/slots.cu"
#include "kernels/cuda/slots_back.cu"
#include "kernels/cuda/pool.cu"
#include "kernels/cuda/conv2d.cu"
#include "kernels/cuda/image.cu"
