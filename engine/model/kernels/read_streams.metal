// hyper.read_streams behind its projection: weights of the mix, Sinkhorn, the mix and its norm.
// One threadgroup of THREADS a token. The n x n matrix is held by the first simdgroup, one entry a
// lane: rows and columns are then summed by exchanges between lanes and no memory is touched in the
// 2 * ITERATIONS halves. n is a power of two and n * n <= 32; lanes beyond n * n repeat the others.
//
// streams [tokens, N, width] S    logits [tokens, 2N + N*N]    base [2N + N*N]    norm [width]
// eps [2]: of the hyper-connection, of the norm
// x [tokens, width]    post [tokens, N]    comb [tokens, N to, N from]
constexpr uint SQUARE = N * N;
constexpr uint LOGITS = 2 * N + SQUARE;
threadgroup float pre[N];
threadgroup float squares[THREADS / 32];

const uint token = threadgroup_position_in_grid.x;
const uint thread_index = thread_index_in_threadgroup;
const uint lane = thread_index_in_simdgroup;
const uint group = simdgroup_index_in_threadgroup;
const uint width = norm_shape[0];

if (group == 0) {
    if (lane < 2 * N) {
        const float logit = logits[token * LOGITS + lane] + base[lane];
        const float gate = 1.0f / (1.0f + metal::exp(-logit));
        if (lane < N) {
            pre[lane] = gate + eps[0];
        } else {
            post[token * N + lane - N] = 2.0f * gate;
        }
    }
    const uint cell = lane % SQUARE;  // row * N + column
    float entry = logits[token * LOGITS + 2 * N + cell] + base[2 * N + cell];
    float peak = entry;
    for (uint step = 1; step < N; step *= 2) {
        peak = metal::max(peak, simd_shuffle_xor(peak, ushort(step)));
    }
    entry = metal::exp(entry - peak);
    float sum = entry;
    for (uint step = 1; step < N; step *= 2) {
        sum += simd_shuffle_xor(sum, ushort(step));
    }
    entry = entry / sum + eps[0];
    for (int turn = 0; turn < 2 * ITERATIONS - 1; turn++) {
        // Columns first, then rows and columns in turn: lanes N apart, or side by side.
        const uint first = turn % 2 == 0 ? uint(N) : 1u;
        sum = entry;
        for (uint step = first; step < first * N; step *= 2) {
            sum += simd_shuffle_xor(sum, ushort(step));
        }
        entry = entry / (sum + eps[0]);
    }
    if (lane < SQUARE) {
        // Stream `row` contributes this entry to stream `column`.
        comb[token * SQUARE + (cell % N) * N + cell / N] = entry;
    }
}
threadgroup_barrier(mem_flags::mem_threadgroup);

float square = 0.0f;
for (uint d = thread_index; d < width; d += THREADS) {
    float mixed = 0.0f;
    for (uint n = 0; n < N; n++) {
        mixed += pre[n] * float(streams[(token * N + n) * width + d]);
    }
    x[token * width + d] = mixed;
    square += mixed * mixed;
}
square = simd_sum(square);
if (lane == 0) {
    squares[group] = square;
}
threadgroup_barrier(mem_flags::mem_threadgroup);
float total = 0.0f;
for (uint other = 0; other < THREADS / 32; other++) {
    total += squares[other];
}
const float scale = metal::rsqrt(total / float(width) + eps[1]);
for (uint d = thread_index; d < width; d += THREADS) {
    // Each thread reads what it wrote itself, so no barrier is needed for it.
    x[token * width + d] = x[token * width + d] * scale * norm[d];
}
