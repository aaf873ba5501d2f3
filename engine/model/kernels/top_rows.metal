// indexer.top_rows: the TOP best of each query's visible rows, ascending by row; of equal scores the
// earlier row wins. One threadgroup a query.
// The score of the last row taken is found eight bits at a time: the scores' bits are made to order
// as unsigned integers, and each of four passes counts, among the rows that agree with the digits
// found so far, how often each next digit occurs. Then one pass, in the order of the rows, writes
// those above that score and the first of those equal to it. Only sums of integers are made, so the
// choice is exact, and the same in every run. Threadgroup memory: 1.2 KB.
//
// scores [queries, count]    visible [queries, padded to 8]: how many rows each query may see
// numbers [queries, TOP] int32    valid [queries, TOP]
constexpr uint GROUPS = THREADS / 32;
threadgroup atomic_uint digits[256];
threadgroup uint found[2];  // the next digit; how many rows are still to be taken
threadgroup uint sums[GROUPS];

const uint query = threadgroup_position_in_grid.x;
const uint thread_index = thread_index_in_threadgroup;
const uint lane = thread_index_in_simdgroup;
const uint group = simdgroup_index_in_threadgroup;
const uint count = scores_shape[1];
const uint seen = metal::min(uint(visible[query]), count);
const uint own = query * count;

if (seen <= TOP) {  // the same for all threads of the group
    for (uint place = thread_index; place < TOP; place += THREADS) {
        numbers[query * TOP + place] = place < seen ? int(place) : 0;
        valid[query * TOP + place] = place < seen ? 1.0f : 0.0f;
    }
    return;
}

uint least = 0;      // the digits of the last row's key
uint wanted = TOP;   // how many of the rows with these digits are taken
for (int shift = 24; shift >= 0; shift -= 8) {
    for (uint digit = thread_index; digit < 256; digit += THREADS) {
        atomic_store_explicit(&digits[digit], 0u, memory_order_relaxed);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint row = thread_index; row < seen; row += THREADS) {
        uint key = as_type<uint>(scores[own + row]);
        key = key == 0x80000000u ? 0u : key;  // minus zero is zero
        key = key & 0x80000000u ? ~key : key | 0x80000000u;
        if (shift == 24 || key >> (shift + 8) == least) {
            atomic_fetch_add_explicit(&digits[(key >> shift) & 255u], 1u, memory_order_relaxed);
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (group == 0) {
        uint counts[8];  // of this lane's digits, from 255 - 8 * lane down
        uint sum = 0;
        for (uint i = 0; i < 8; i++) {
            counts[i] = atomic_load_explicit(&digits[255 - 8 * lane - i], memory_order_relaxed);
            sum += counts[i];
        }
        uint above = simd_prefix_exclusive_sum(sum);
        if (above < wanted && wanted <= above + sum) {  // for one lane
            uint i = 0;
            while (above + counts[i] < wanted) {
                above += counts[i];
                i++;
            }
            found[0] = 255 - 8 * lane - i;
            found[1] = wanted - above;
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    least = (least << 8) | found[0];
    wanted = found[1];
}

uint above = 0;  // rows before this strip with a greater key, and with the same
uint equal = 0;
for (uint start = 0; start < seen; start += THREADS) {
    const uint row = start + thread_index;
    uint mark = 0;  // a greater key counts 1, the same 65536: a strip has at most 1024 of each
    if (row < seen) {
        uint key = as_type<uint>(scores[own + row]);
        key = key == 0x80000000u ? 0u : key;
        key = key & 0x80000000u ? ~key : key | 0x80000000u;
        mark = key > least ? 1u : (key == least ? 65536u : 0u);
    }
    const uint inner = simd_prefix_exclusive_sum(mark);
    if (lane == 31) {
        sums[group] = inner + mark;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const uint sum = lane < GROUPS ? sums[lane] : 0u;
    const uint before = inner + simd_sum(lane < group ? sum : 0u);
    const uint total = simd_sum(sum);
    const uint ties = equal + (before >> 16);
    if (mark == 1u || (mark == 65536u && ties < wanted)) {
        const uint place = above + (before & 65535u) + metal::min(ties, wanted);
        numbers[query * TOP + place] = int(row);
        valid[query * TOP + place] = 1.0f;
    }
    above += total & 65535u;
    equal += total >> 16;
    threadgroup_barrier(mem_flags::mem_threadgroup);
}
