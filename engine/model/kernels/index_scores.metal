// indexer.index_scores of one block of rows: sum over heads of weight * relu(q . row). The products
// of all heads, 64 times the result, stay in registers.
// A threadgroup of 256 makes the scores of one query and 64 rows, going through the heads 64 at a
// time and through the channels 16 at a time; a thread has 4 rows x 4 heads of the products, so that
// eight values read give sixteen multiplications. The 16 threads of the same rows lie side by side
// in a simdgroup and add up their heads by exchanges. Threadgroup memory: 8.3 KB.
//
// q [queries, heads, dim]    weights [queries, heads]    rows [count, dim] T
// scores [queries, count]
constexpr uint TILE = 64;
constexpr uint DEPTH = 16;
// One more than 64: the threads of a simdgroup store a column, and must not all meet in one bank.
threadgroup float some_rows[DEPTH][TILE + 1];
threadgroup float some_heads[DEPTH][TILE + 1];

const uint heads = q_shape[1];
const uint dim = q_shape[2];
const uint count = rows_shape[0];
const uint query = threadgroup_position_in_grid.y;
const uint first = threadgroup_position_in_grid.x * TILE;
const uint thread_index = thread_index_in_threadgroup;
const uint mine = thread_index / 16;   // has rows mine, mine + 16, …
const uint other = thread_index % 16;  // has heads other, other + 16, …

float score[4] = {0.0f, 0.0f, 0.0f, 0.0f};
for (uint head = 0; head < heads; head += TILE) {
    float products[4][4];
    for (uint i = 0; i < 4; i++) {
        for (uint j = 0; j < 4; j++) {
            products[i][j] = 0.0f;
        }
    }
    for (uint channel = 0; channel < dim; channel += DEPTH) {
        for (uint element = thread_index; element < TILE * DEPTH; element += 256) {
            const uint k = element % DEPTH;
            const uint place = element / DEPTH;
            const bool inside = channel + k < dim;
            some_rows[k][place] = inside && first + place < count
                ? float(rows[(first + place) * dim + channel + k]) : 0.0f;
            some_heads[k][place] = inside && head + place < heads
                ? q[(query * heads + head + place) * dim + channel + k] : 0.0f;
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (uint k = 0; k < DEPTH; k++) {
            float own[4];
            for (uint i = 0; i < 4; i++) {
                own[i] = some_rows[k][mine + 16 * i];
            }
            for (uint j = 0; j < 4; j++) {
                const float value = some_heads[k][other + 16 * j];
                for (uint i = 0; i < 4; i++) {
                    products[i][j] += own[i] * value;
                }
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    for (uint j = 0; j < 4; j++) {
        const uint h = head + other + 16 * j;
        const float weight = h < heads ? weights[query * heads + h] : 0.0f;
        for (uint i = 0; i < 4; i++) {
            score[i] += weight * metal::max(products[i][j], 0.0f);
        }
    }
}
for (uint i = 0; i < 4; i++) {
    float sum = score[i];
    for (uint step = 1; step < 16; step *= 2) {
        sum += simd_shuffle_xor(sum, ushort(step));
    }
    const uint row = first + mine + 16 * i;
    if (other == 0 && row < count) {
        scores[query * count + row] = sum;
    }
}
