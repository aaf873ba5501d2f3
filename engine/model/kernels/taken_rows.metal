// rows.taken_rows out of several blocks in one go: each number says which block to look in. One
// thread a channel. The lines with BLOCK are repeated for each of the blocks (`kernels.gather`);
// numbers of other blocks keep what stood in `before`, so that any number of blocks is gone through
// some at a time.
//
// numbers [places]    starts [blocks + 1, padded to 8]    before [places, width] T, if CHAINED
// block_0, block_1 … [rows, width] T
// out [places, width] T
const uint width = block_0_shape[1];
const uint place = threadgroup_position_in_grid.y;
const uint d = threadgroup_position_in_grid.x * THREADS + thread_index_in_threadgroup;
if (d < width) {
    const int number = numbers[place];
    T value = T(0.0f);
    if (CHAINED) {
        value = before[place * width + d];
    }
    if (number >= starts[BLOCK] && number < starts[BLOCK + 1]) { value = block_BLOCK[uint(number - starts[BLOCK]) * width + d]; }
    out[place * width + d] = value;
}
