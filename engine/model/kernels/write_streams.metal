// hyper.write_streams: each stream's new value is a mix of all streams and of the sublayer's output.
// One thread a channel of a token; it reads the N streams once and writes all N.
//
// streams [tokens, N, width] S    y [tokens, width]    post [tokens, N]    comb [tokens, N to, N from]
// out [tokens, N, width] S
const uint width = y_shape[1];
const uint token = threadgroup_position_in_grid.y;
const uint d = threadgroup_position_in_grid.x * THREADS + thread_index_in_threadgroup;
if (d < width) {
    float before[N];
    for (uint n = 0; n < N; n++) {
        before[n] = float(streams[(token * N + n) * width + d]);
    }
    const float own = float(y[token * width + d]);
    for (uint to = 0; to < N; to++) {
        float value = post[token * N + to] * own;
        for (uint n = 0; n < N; n++) {
            value += comb[(token * N + to) * N + n] * before[n];
        }
        out[(token * N + to) * width + d] = S(value);
    }
}
