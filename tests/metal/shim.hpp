// What a Metal kernel of this repository uses, in C++ on a CPU: the threads of a threadgroup are
// fibers that take turns and change at barriers and exchanges only, in an order that is given, so that
// a barrier that is missing shows as another result in another order. Every index into a buffer is
// checked; threadgroup memory keeps what the group before left there, as on a GPU.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>

typedef unsigned int uint;
typedef unsigned short ushort;
struct uint3 { uint x, y, z; };

[[noreturn]] inline void fail(const char* what, const char* name = "", long at = 0, long size = 0) {
    fprintf(stderr, "%s %s %ld of %ld\n", what, name, at, size);
    exit(1);
}

struct bfloat16_t {
    uint16_t bits;
    bfloat16_t() = default;
    explicit bfloat16_t(float value) {  // to nearest, ties to even
        uint32_t whole;
        memcpy(&whole, &value, 4);
        bits = uint16_t((whole + 0x7fffu + ((whole >> 16) & 1u)) >> 16);
    }
    operator float() const {
        uint32_t whole = uint32_t(bits) << 16;
        float value;
        memcpy(&value, &whole, 4);
        return value;
    }
};

template <typename T> struct Buffer {
    T* data;
    long size;
    const char* name;
    T& operator[](uint index) const {
        if (long(index) >= size) fail("out of bounds:", name, long(index), size);
        return data[index];
    }
};

struct Barrier { uint size, waiting, generation; };

struct Machine {
    static constexpr uint MOST = 1024, STACK = 1 << 16;
    ucontext_t home, fibers[MOST];
    bool done[MOST];
    char* stacks;
    uint threads, now;
    long progress;
    uint3 group;
    Barrier all, simd[MOST / 32];
    uint32_t slots[MOST];
    void (*body)();
};
inline Machine machine;

inline void wait_at(Barrier& barrier) {
    const uint generation = barrier.generation;
    if (++barrier.waiting == barrier.size) {
        barrier.waiting = 0;
        barrier.generation++;
        machine.progress++;
        return;
    }
    while (barrier.generation == generation) swapcontext(&machine.fibers[machine.now], &machine.home);
}

inline void run_fiber() {
    machine.body();
    machine.done[machine.now] = true;
    machine.progress++;
}

// Of `count` threads, or simdgroups, the one whose turn is the i-th. `order`: 0 ascending, 1
// descending, otherwise mixed, by a multiplier that is odd while `count` is a power of two.
inline uint in_turn(uint i, uint count, uint order) {
    return order == 0 ? i : order == 1 ? count - 1 - i : (i * 37 + order) % count;
}

// A simdgroup runs as far as it gets before the next has its turn, as one that is far ahead would.
inline void run_simdgroup(uint first, uint order) {
    Machine& m = machine;
    for (long before = -1; before != m.progress;) {
        before = m.progress;
        for (uint i = 0; i < 32; i++) {
            m.now = first + in_turn(i, 32, order);
            if (!m.done[m.now]) swapcontext(&m.home, &m.fibers[m.now]);
        }
    }
}

inline void run_group(uint order) {
    Machine& m = machine;
    m.all = Barrier{m.threads, 0, 0};
    for (uint i = 0; i < m.threads / 32; i++) m.simd[i] = Barrier{32, 0, 0};
    for (uint i = 0; i < m.threads; i++) {
        m.done[i] = false;
        getcontext(&m.fibers[i]);
        m.fibers[i].uc_stack.ss_sp = m.stacks + size_t(i) * Machine::STACK;
        m.fibers[i].uc_stack.ss_size = Machine::STACK;
        m.fibers[i].uc_link = &m.home;
        makecontext(&m.fibers[i], run_fiber, 0);
    }
    for (uint left = m.threads; left != 0;) {
        const long before = m.progress;
        for (uint i = 0; i < m.threads / 32; i++)
            run_simdgroup(32 * in_turn(i, m.threads / 32, order), order);
        left = 0;
        for (uint i = 0; i < m.threads; i++) left += !m.done[i];
        if (left != 0 && m.progress == before) fail("not every thread reaches a barrier");
    }
}

inline void run_grid(uint x, uint y, uint threads, uint order, void (*body)()) {
    if (threads > Machine::MOST || threads % 32 != 0) fail("threads:", "", threads, Machine::MOST);
    machine.threads = threads;
    machine.body = body;
    machine.stacks = static_cast<char*>(malloc(size_t(threads) * Machine::STACK));
    for (uint row = 0; row < y; row++)
        for (uint column = 0; column < x; column++) {
            machine.group = uint3{column, row, 0};
            run_group(order);
        }
    free(machine.stacks);
}

// What Metal's library has.
#define threadgroup static
enum class mem_flags { mem_threadgroup };
inline void threadgroup_barrier(mem_flags) { wait_at(machine.all); }

template <typename To, typename From> To as_type(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To other;
    memcpy(&other, &value, sizeof(To));
    return other;
}

template <typename T, typename Reduce> T exchanged(T value, Reduce reduce) {
    const uint now = machine.now, first = now / 32 * 32;
    machine.slots[now] = as_type<uint32_t>(value);
    wait_at(machine.simd[now / 32]);
    T lanes[32];
    for (uint lane = 0; lane < 32; lane++) lanes[lane] = as_type<T>(machine.slots[first + lane]);
    const T result = reduce(lanes, now % 32);
    wait_at(machine.simd[now / 32]);
    return result;
}
template <typename T> T simd_sum(T value) {
    return exchanged(value, [](const T* lanes, uint) {
        T sum = 0;
        for (uint lane = 0; lane < 32; lane++) sum += lanes[lane];
        return sum;
    });
}
template <typename T> T simd_prefix_exclusive_sum(T value) {
    return exchanged(value, [](const T* lanes, uint own) {
        T sum = 0;
        for (uint lane = 0; lane < own; lane++) sum += lanes[lane];
        return sum;
    });
}
template <typename T> T simd_shuffle_xor(T value, ushort mask) {
    return exchanged(value, [mask](const T* lanes, uint own) {
        if ((own ^ mask) >= 32) fail("simd_shuffle_xor:", "", mask, 32);
        return lanes[own ^ mask];
    });
}

struct atomic_uint { uint value; };
enum memory_order { memory_order_relaxed };
inline void atomic_store_explicit(atomic_uint* at, uint value, memory_order) { at->value = value; }
inline uint atomic_load_explicit(atomic_uint* at, memory_order) { return at->value; }
inline uint atomic_fetch_add_explicit(atomic_uint* at, uint value, memory_order) {
    return (at->value += value) - value;
}

namespace metal {
inline float exp(float x) { return expf(x); }
inline float rsqrt(float x) { return 1.0f / sqrtf(x); }
template <typename T> T max(T a, T b) { return a > b ? a : b; }
template <typename T> T min(T a, T b) { return a < b ? a : b; }
}  // namespace metal

// The kernel's inputs come on stdin, its outputs go to stdout.
inline void read_all(void* data, size_t size) {
    if (fread(data, 1, size, stdin) != size) fail("the input ends too early");
}
template <typename T> Buffer<T> read_buffer(const char* name, int* shape) {
    int rank;
    read_all(&rank, sizeof rank);
    read_all(shape, sizeof(int) * rank);
    long size = 1;
    for (int axis = 0; axis < rank; axis++) size *= shape[axis];
    T* data = static_cast<T*>(malloc(size * sizeof(T)));
    read_all(data, size * sizeof(T));
    return Buffer<T>{data, size, name};
}
// Filled with a pattern that is no number: what is never written is seen.
template <typename T> Buffer<T> new_buffer(const char* name, long size) {
    T* data = static_cast<T*>(malloc(size * sizeof(T)));
    memset(static_cast<void*>(data), 0xff, size * sizeof(T));
    return Buffer<T>{data, size, name};
}
template <typename T> void write_buffer(const Buffer<T>& buffer) {
    fwrite(buffer.data, sizeof(T), buffer.size, stdout);
}
