// softmax.attend_pieces, one piece of keys after the other: a softmax that goes on. For each query
// and head it takes up the largest score, the sum of weights and the weighted sum of rows as the
// piece before left them (the first begins with the sink, which has weight and gives nothing), and
// hands them on; the last divides. Subtracting the largest score keeps it right whatever the scores.
// One threadgroup of 16 simdgroups a query and head; each simdgroup takes every 16th key, its lanes
// share the channels, and the sums meet in threadgroup memory, one slice of 32 channels after the
// other, 2 KB at a time. 1024 threads would leave a thread 52 registers, and it needs about that
// many (32 for the query and the sum at 512 channels); with 512 it has twice as many.
//
// q [queries, heads, WIDTH]    keys [count, WIDTH] T, or [queries, count, WIDTH] if OWN_KEYS
// mask [queries, count], if MASKED: 0 is not seen
// carry [queries, heads, 2]: largest score and sum; if FIRST the sinks [heads]
// sums [queries, heads, WIDTH], unless FIRST
// out [queries, heads, WIDTH]    carried [queries, heads, 2]
constexpr uint PARTS = WIDTH / 32;
constexpr uint GROUPS = THREADS / 32;
threadgroup float peaks[GROUPS];
threadgroup float totals[GROUPS];
threadgroup float slice[GROUPS][32];

const uint heads = q_shape[1];
const uint count = keys_shape[OWN_KEYS ? 1 : 0];
const uint head = threadgroup_position_in_grid.x;
const uint query = threadgroup_position_in_grid.y;
const uint lane = thread_index_in_simdgroup;
const uint group = simdgroup_index_in_threadgroup;
const uint own = query * heads + head;

float asked[PARTS];
float sum[PARTS];
for (uint part = 0; part < PARTS; part++) {
    asked[part] = q[own * WIDTH + part * 32 + lane];
    sum[part] = 0.0f;
}
float peak = -1e30f;  // of no key: finite, so that no difference of infinities is made
float total = 0.0f;
for (uint key = group; key < count; key += GROUPS) {
    if (MASKED) {
        if (mask[query * count + key] == 0.0f) {  // the same for all lanes
            continue;
        }
    }
    const uint row = (OWN_KEYS ? query * count + key : key) * WIDTH;
    float value[PARTS];
    float score = 0.0f;
    for (uint part = 0; part < PARTS; part++) {
        value[part] = float(keys[row + part * 32 + lane]);
        score += asked[part] * value[part];
    }
    score = simd_sum(score);
    const float higher = metal::max(peak, score);
    const float shrink = metal::exp(peak - higher);
    const float weight = metal::exp(score - higher);
    total = total * shrink + weight;
    for (uint part = 0; part < PARTS; part++) {
        sum[part] = sum[part] * shrink + weight * value[part];
    }
    peak = higher;
}

if (lane == 0) {
    peaks[group] = peak;
    totals[group] = total;
}
threadgroup_barrier(mem_flags::mem_threadgroup);
const float old_peak = FIRST ? carry[head] : carry[own * 2];
const float old_total = FIRST ? 1.0f : carry[own * 2 + 1];
float highest = old_peak;
for (uint other = 0; other < GROUPS; other++) {
    highest = metal::max(highest, peaks[other]);
}
const float kept = metal::exp(old_peak - highest);
float whole = old_total * kept;
for (uint other = 0; other < GROUPS; other++) {
    whole += totals[other] * metal::exp(peaks[other] - highest);
}
const float mine = metal::exp(peak - highest);
for (uint part = 0; part < PARTS; part++) {
    slice[group][lane] = sum[part] * mine;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (group == part % GROUPS) {
        const uint place = own * WIDTH + part * 32 + lane;
        float joint = 0.0f;
        if (!FIRST) {
            joint = sums[place] * kept;
        }
        for (uint other = 0; other < GROUPS; other++) {
            joint += slice[other][lane];
        }
        out[place] = LAST ? joint / whole : joint;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
}
if (group == 0 && lane == 0) {
    carried[own * 2] = highest;
    carried[own * 2 + 1] = whole;
}
