/* Sinkhorn-Knopp on many 4x4 matrices, forward and backward, for training on CPU.
 *
 * In: logits [count, 16] float, row-major. Out: the doubly stochastic matrices of V4's
 * hyper-connections: softmax over the last axis, + eps, one column normalisation, then
 * (iterations - 1) times rows and columns. LANES matrices are worked on at once, so that every
 * inner loop is one vector instruction; the backward repeats the forward instead of storing it.
 */
#include <math.h>
#include <stdint.h>

#define LANES 16
#define CELLS 16
#define MOST_STEPS 64

typedef float Block[CELLS][LANES];
typedef float Line[4][LANES];

/* Cell `k` of line `a`: lines are rows when `rows`, else columns. */
static inline int cell(int rows, int a, int k) { return rows ? a * 4 + k : k * 4 + a; }

static void normalise(const Block in, Block out, Line inverse, int rows, float eps) {
    for (int a = 0; a < 4; a++)
        for (int t = 0; t < LANES; t++) {
            float sum = eps;
            for (int k = 0; k < 4; k++) sum += in[cell(rows, a, k)][t];
            inverse[a][t] = 1.0f / sum;
            for (int k = 0; k < 4; k++)
                out[cell(rows, a, k)][t] = in[cell(rows, a, k)][t] * inverse[a][t];
        }
}

/* d in = (d out - sum(d out * out)) / sum, in place. */
static void normalise_backward(Block grad, const Block out, const Line inverse, int rows) {
    for (int a = 0; a < 4; a++)
        for (int t = 0; t < LANES; t++) {
            float dot = 0.0f;
            for (int k = 0; k < 4; k++)
                dot += grad[cell(rows, a, k)][t] * out[cell(rows, a, k)][t];
            for (int k = 0; k < 4; k++) {
                float *g = &grad[cell(rows, a, k)][t];
                *g = (*g - dot) * inverse[a][t];
            }
        }
}

static void load(const float *in, Block out, int count) {
    for (int c = 0; c < CELLS; c++)
        for (int t = 0; t < LANES; t++) out[c][t] = t < count ? in[t * CELLS + c] : 0.0f;
}

static void store(const Block in, float *out, int count) {
    for (int t = 0; t < count; t++)
        for (int c = 0; c < CELLS; c++) out[t * CELLS + c] = in[c][t];
}

/* Row softmax of `x` in place. */
static void softmax(Block x) {
    for (int a = 0; a < 4; a++)
        for (int t = 0; t < LANES; t++) {
            float most = fmaxf(fmaxf(x[a * 4][t], x[a * 4 + 1][t]),
                               fmaxf(x[a * 4 + 2][t], x[a * 4 + 3][t]));
            float sum = 0.0f;
            for (int k = 0; k < 4; k++) {
                x[a * 4 + k][t] = expf(x[a * 4 + k][t] - most);
                sum += x[a * 4 + k][t];
            }
            for (int k = 0; k < 4; k++) x[a * 4 + k][t] /= sum;
        }
}

/* Step 0 and every even step is over columns, odd steps over rows. */
static int is_row_step(int step) { return step & 1; }

void sinkhorn_forward(const float *in, float *out, int64_t count, int iterations, float eps) {
    int64_t blocks = (count + LANES - 1) / LANES;
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        int used = count - b * LANES < LANES ? (int)(count - b * LANES) : LANES;
        Block x;
        Line inverse;
        load(in + b * LANES * CELLS, x, used);
        softmax(x);
        for (int c = 0; c < CELLS; c++)
            for (int t = 0; t < LANES; t++) x[c][t] += eps;
        for (int step = 0; step < 2 * iterations - 1; step++)
            normalise(x, x, inverse, is_row_step(step), eps);
        store(x, out + b * LANES * CELLS, used);
    }
}

void sinkhorn_backward(const float *in, const float *grad_out, float *grad_in, int64_t count,
                       int iterations, float eps) {
    int64_t blocks = (count + LANES - 1) / LANES;
    int steps = 2 * iterations - 1;
    if (steps > MOST_STEPS) return;
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        int used = count - b * LANES < LANES ? (int)(count - b * LANES) : LANES;
        Block soft, grad, states[MOST_STEPS + 1];
        Line inverses[MOST_STEPS];
        load(in + b * LANES * CELLS, soft, used);
        softmax(soft);
        for (int c = 0; c < CELLS; c++)
            for (int t = 0; t < LANES; t++) states[0][c][t] = soft[c][t] + eps;
        for (int step = 0; step < steps; step++)
            normalise(states[step], states[step + 1], inverses[step], is_row_step(step), eps);
        load(grad_out + b * LANES * CELLS, grad, used);
        for (int step = steps - 1; step >= 0; step--)
            normalise_backward(grad, states[step + 1], inverses[step], is_row_step(step));
        for (int a = 0; a < 4; a++)
            for (int t = 0; t < LANES; t++) {
                float dot = 0.0f;
                for (int k = 0; k < 4; k++) dot += grad[a * 4 + k][t] * soft[a * 4 + k][t];
                for (int k = 0; k < 4; k++)
                    grad[a * 4 + k][t] = (grad[a * 4 + k][t] - dot) * soft[a * 4 + k][t];
            }
        store(grad, grad_in + b * LANES * CELLS, used);
    }
}
